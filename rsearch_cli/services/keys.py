"""API keys: validated before use, and redacted in every message."""

from __future__ import annotations

import html
import json
import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import quote, quote_plus, urlsplit

from rsearch_cli.errors import AccessDenied

SECRET_ENDINGS = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""Endings of environment variables that hold secrets."""

WANDB_VARIABLE = "WANDB_API_KEY"
WANDB_SERVER = "https://api.wandb.ai"

_LEAST_CHARS = 8
_QUOTES = "\"'`‘’“”«»"


def read_key(variable: str) -> str:
    """Return the key in an environment variable, stripped; "" if there is none."""
    return os.environ.get(variable, "").strip()


def check_key(variable: str, key: str) -> None:
    """Check that a text can be a key before it is put into a header.

    HTTP libraries would quote it in their error message.

    Args:
        variable: Environment variable of the key, for the message.
        key: Not empty.

    Raises:
        AccessDenied: It cannot be a key; the message does not contain it.
    """
    if (flaw := find_flaw(variable, key)) is not None:
        raise AccessDenied(flaw)


def describe_flaw(key: str) -> str | None:
    """Return what no key contains but this text does, such as `holds a space`; or None."""
    flaws = {
        "holds a line break": len(key.splitlines()) > 1,
        "begins or ends with a quotation mark": key[0] in _QUOTES or key[-1] in _QUOTES,
        "holds a space": any(character.isspace() for character in key),
        "holds a character that is not visible ASCII": not (key.isascii() and key.isprintable()),
    }
    return next((flaw for flaw, has_it in flaws.items() if has_it), None)


def find_flaw(variable: str, key: str) -> str | None:
    """Return what is wrong with the form of a key, as a sentence without the key; or None.

    Args:
        variable: Environment variable of the key.
        key: Not empty.
    """
    found = describe_flaw(key)
    return None if found is None else f"{variable} {found}, and no key does; copy the key again"


def environment_with_login() -> dict[str, str]:
    """Return the environment, plus the key stored by `wandb login` if it has none."""
    import netrc

    secrets = dict(os.environ)
    host = urlsplit(secrets.get("WANDB_BASE_URL") or WANDB_SERVER).netloc
    for name in (secrets.get("NETRC"), "~/.netrc", "~/_netrc"):
        if name and not secrets.get(WANDB_VARIABLE):
            # Missing, unreadable or malformed: W&B does not accept it either.
            with suppress(OSError, ValueError, netrc.NetrcParseError):
                found = netrc.netrc(os.path.expanduser(name)).authenticators(host)
                secrets[WANDB_VARIABLE] = (found[2] if found else None) or ""
    return secrets


def find_secrets(environment: Mapping[str, str]) -> list[str]:
    """Return the values of all environment variables that are named like a key or a token."""
    return [
        value
        for name, value in environment.items()
        if name.endswith(SECRET_ENDINGS) and len(value) >= _LEAST_CHARS
    ]


def hide_secrets(text: str, secrets: Iterable[str] | None = None) -> str:
    """Replace secrets by `***`, in every form in which libraries and servers may quote them.

    Args:
        text: A message.
        secrets: Texts to hide, none empty; None takes the secrets of the environment.
    """
    found = find_secrets(os.environ) if secrets is None else secrets
    forms = {form for secret in found for form in _spell(secret) if form}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def _spell(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may be quoted: escaped, encoded, stripped."""
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
