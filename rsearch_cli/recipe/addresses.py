"""Addresses of servers: what is one, and how it is shown where it is none.

Place in the path: a part of the schema, and below the clients that take an address from the
environment. On failure: `check_address` raises the `ValueError` that pydantic reports; an address
that passes is one that every client can call.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

# At most 63 characters a label: the resolver takes no more.
_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?", re.ASCII)
_IPV4 = re.compile(r"\d+(\.\d+){3}", re.ASCII)
# All visible ASCII but ? and #, which would swallow the path that clients put behind an address.
_PLAIN = re.compile(r'[!"$->@-~]*')


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


Address = Annotated[str, AfterValidator(check_address)]
"""The base URL of a server, in a recipe."""
