"""Keys of services: checked before they are used, and hidden in every message."""

from __future__ import annotations

import html
import json
import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from rsearch_cli.errors import AccessDenied

SECRET_ENDINGS = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""Environment variables with these endings hold secrets."""

_LEAST_CHARS = 8
_QUOTES = "\"'`‘’“”«»"


def read_key(variable: str) -> str:
    """The key in an environment variable without white space around it; "" if there is none."""
    return os.environ.get(variable, "").strip()


def check_key(variable: str, key: str) -> None:
    """Check that text can be a key before it is put into a header.

    HTTP libraries refuse other text in words that quote it.

    Args:
        variable: Where the user gives the key, for the message.
        key: Not empty.

    Raises:
        AccessDenied: It cannot be a key. The message does not hold it.
    """
    if (flaw := find_flaw(variable, key)) is not None:
        raise AccessDenied(flaw)


def find_flaw(variable: str, key: str) -> str | None:
    """What is wrong with the form of a key, as a sentence that does not hold it; None if nothing.

    Args:
        variable: Where the user gives the key.
        key: Not empty.
    """
    flaws = {
        "holds a line break": len(key.splitlines()) > 1,
        "begins or ends with a quotation mark": key[0] in _QUOTES or key[-1] in _QUOTES,
        "holds a space": any(character.isspace() for character in key),
        "holds a character that is no visible ASCII": not (key.isascii() and key.isprintable()),
    }
    found = next((flaw for flaw, has_it in flaws.items() if has_it), None)
    return None if found is None else f"{variable} {found}, and no key does; copy the key again"


def find_secrets(environment: Mapping[str, str]) -> list[str]:
    """The values of all environment variables that are named like a key or a token."""
    return [
        value
        for name, value in environment.items()
        if name.endswith(SECRET_ENDINGS) and len(value) >= _LEAST_CHARS
    ]


def hide_secrets(text: str, secrets: Iterable[str] | None = None) -> str:
    """Replace secrets by `***`, in whatever form libraries and servers may quote them.

    Args:
        text: A message.
        secrets: What must not be shown, each at least one character; None takes all that the
            environment holds.
    """
    found = find_secrets(os.environ) if secrets is None else secrets
    forms = {form for secret in found for form in _spell(secret) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def _spell(secret: str) -> Iterator[str]:
    """The forms in which a secret may be quoted: escaped, encoded, stripped."""
    raw = secret.encode(errors="surrogatepass")
    for plain in (secret, secret.strip()):
        escaped = [repr(plain), ascii(plain), json.dumps(plain)]
        escaped = [form[1:-1] for form in (*escaped, json.dumps(plain, ensure_ascii=False))]
        yield from (plain, html.escape(plain), " ".join(plain.split()), *escaped)
        yield from (repr(form)[1:-1] for form in escaped)
        for encoded in (quote(plain, safe=""), quote(plain), quote_plus(plain)):
            yield from (encoded, encoded.lower())
    yield repr(raw)[2:-1]
    yield b64encode(raw).decode().rstrip("=")
