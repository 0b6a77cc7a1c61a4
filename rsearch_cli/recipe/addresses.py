"""URLs of servers in recipes and in the environment: validated, and shown without passwords."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import AfterValidator, HttpUrl, ValidationError

# The authority of a URL up to its last @ is user name and password.
_LOGIN = re.compile(r"(\w+://)[^\s/?#]*@(\S*)")


def is_http(url: str) -> bool:
    """Whether text is the base URL of an HTTP server, with or without a login, without a query."""
    try:
        parsed = HttpUrl(url)
    except ValidationError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and "///" not in url
    # Python's resolver raises UnicodeError for other labels.
    resolvable = all(0 < len(label) < 64 for label in (parsed.host or "").rstrip(".").split("."))
    whole = parsed.query is None and parsed.fragment is None and parsed.port != 0
    # An @ in the path is the end of a password with an unescaped slash.
    return plain and resolvable and whole and "@" not in (parsed.path or "")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def hide_login(url: str) -> str:
    """Remove what may be a user name or a password from text that should be a URL."""
    return re.sub(r"(?s)^(\w+://)?.*@", r"\1", url)


def check_address(url: str) -> str:
    """Return the base URL of an HTTP server.

    Raises:
        ValueError: It is not one.
    """
    if not is_http(url):
        raise ValueError(
            "it must be an http URL such as http://localhost:8000/v1, without ? and #, "
            f"got {json.dumps(hide_login(url))}"
        )
    return url


def refuse_logins(settings: dict[str, Any]) -> None:
    """Refuse settings that contain a URL with a user name or a password.

    Raises:
        ValueError: Naming the key, without the login.
    """
    for key, text in _walk(settings, ""):
        if found := _LOGIN.search(text):
            raise ValueError(
                f"{key} contains a user name or a password, and run folders store recipes in plain "
                "text; remove it and set a key in the environment (OPENAI_API_KEY for an "
                f"OpenAI-compatible server), got {json.dumps(f'{found[1]}***@{found[2]}')}"
            )


def _walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield every text with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in named:
            yield from _walk(inner, f"{key}.{name}" if key else str(name))


Address = Annotated[str, AfterValidator(check_address)]
"""The base URL of a server; `refuse_logins` refuses passwords in it."""
