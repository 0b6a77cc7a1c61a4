"""Keys of services: checked before they are used, and hidden in every message."""

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
"""Environment variables with these endings hold secrets."""

WANDB_VARIABLE = "WANDB_API_KEY"
WANDB_SERVER = "https://api.wandb.ai"

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


def describe_flaw(key: str) -> str | None:
    """What the text of a key has that no key has, such as `holds a space`; None if nothing."""
    flaws = {
        "holds a line break": len(key.splitlines()) > 1,
        "begins or ends with a quotation mark": key[0] in _QUOTES or key[-1] in _QUOTES,
        "holds a space": any(character.isspace() for character in key),
        "holds a character that is no visible ASCII": not (key.isascii() and key.isprintable()),
    }
    return next((flaw for flaw, has_it in flaws.items() if has_it), None)


def find_flaw(variable: str, key: str) -> str | None:
    """What is wrong with the form of a key, as a sentence that does not hold it; None if nothing.

    Args:
        variable: Where the user gives the key.
        key: Not empty.
    """
    found = describe_flaw(key)
    return None if found is None else f"{variable} {found}, and no key does; copy the key again"


def environment_with_login() -> dict[str, str]:
    """The environment, with the key that `wandb login` has stored where it holds none."""
    import netrc

    secrets = dict(os.environ)
    host = urlsplit(secrets.get("WANDB_BASE_URL") or WANDB_SERVER).netloc
    for name in (secrets.get("NETRC"), "~/.netrc", "~/_netrc"):
        if name and not secrets.get(WANDB_VARIABLE):
            # It is not there, cannot be read or is malformed: W&B does not take it either.
            with suppress(OSError, ValueError, netrc.NetrcParseError):
                found = netrc.netrc(os.path.expanduser(name)).authenticators(host)
                secrets[WANDB_VARIABLE] = (found[2] if found else None) or ""
    return secrets


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
