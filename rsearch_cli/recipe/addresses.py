"""Addresses of servers: what is one, and which of them hold a secret.

Place in the path: a part of the schema, and below the clients that take an address from the
environment. On failure: `check_address` and `refuse_logins` raise the `ValueError` that pydantic
reports; an address that passes is one that every client can call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator

# At most 63 characters a label: the resolver takes no more.
_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
_IPV4 = re.compile(r"\d+(\.\d+){3}", re.ASCII)
# All visible ASCII but ? and #, which would swallow the path that clients put behind an address.
_PLAIN = re.compile(r'[!"$->@-~]*')
# User name and password are whatever stands before the last @ of a URL's server.
_LOGIN = re.compile(r"(\w+://)[^\s/?#]*@(\S*)")


def is_http(url: str) -> bool:
    """Whether text is the base URL of an HTTP server, with or without a login, without a query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        is_ip = "[" in parts.netloc or _IPV4.fullmatch(host) is not None
        if is_ip:
            ip_address(host)
    except ValueError:  # brackets that do not match, a port that is no number, 999.1.1.1
        return False
    return (
        parts.scheme in ("http", "https")
        and (is_ip or _NAME.fullmatch(host) is not None)
        and port != 0
        and _PLAIN.fullmatch(url) is not None
        and "@" not in parts.path  # a password with a slash, which was not escaped
    )


def hide_login(url: str) -> str:
    """Take all that may be a user name or a password out of text that should be an address."""
    return re.sub(r"(?s)^(\w+://)?.*@", r"\1", url)


def check_address(url: str) -> str:
    """Let an address pass.

    Raises:
        ValueError: It is none.
    """
    if not is_http(url):
        raise ValueError(
            "it must be an http address such as http://localhost:8000/v1, without ? and #, "
            f"got {json.dumps(hide_login(url))}"
        )
    return url


def refuse_logins(settings: dict[str, Any]) -> None:
    """Check that no text among settings holds a URL with a user name or a password.

    Raises:
        ValueError: One does; its key is named, the login is not shown.
    """
    for key, text in _walk(settings, ""):
        if found := _LOGIN.search(text):
            raise ValueError(
                f"{key} holds a user name or a password, and run folders keep recipes in clear; "
                "take it out, and give a key in the environment (OPENAI_API_KEY for an "
                f"OpenAI-compatible server), got {json.dumps(f'{found[1]}***@{found[2]}')}"
            )


def _walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in named:
            yield from _walk(inner, f"{key}.{name}" if key else str(name))


Address = Annotated[str, AfterValidator(check_address)]
"""The base URL of a server, in a recipe; `refuse_logins` sees to its password."""
