"""What keys of common services, private keys and tokens look like, in bytes of any file.

The forms are those that the services themselves or the common secret scanners describe. A key that
has no form of its own, such as Exa's UUIDs or W&B's 40 hex digits, is known by the name beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# What a message calls it, and its form. Each form has at least `_SHORTEST` printable characters.
_FORMS = (
    ("a private key", rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"),
    ("a private key", rb"PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1[0-9A-Z]{40}"),
    ("a token in JWT form", rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    ("a key of AWS", rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("a key of Google Cloud", rb"AIza[\w-]{35}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,}"),
    ("a key of Azure", rb"AccountKey=[A-Za-z0-9+/]{80,}={0,2}|[\w.~-]{3}8Q~[\w.~-]{31,34}"),
    ("a key of Azure", rb"[?&]sig=[A-Za-z0-9%+/]{40,}"),
    ("a key of GitHub", rb"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"),
    ("a key of GitLab", rb"gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat)-[\w-]{20,}"),
    ("a key of Hugging Face", rb"hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}"),
    ("a key of OpenAI, Anthropic or a service alike", rb"sk-[A-Za-z0-9_-]{20,}"),
    ("a key of Groq, xAI, Perplexity, NVIDIA or Replicate",
     rb"gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9]{40,}|pplx-[A-Za-z0-9]{40,}|nvapi-[\w-]{40,}"
     rb"|r8_[A-Za-z0-9]{37}"),
    ("a key of Tavily, Pinecone or LangSmith",
     rb"tvly-[A-Za-z0-9-]{20,}|pcsk_[\w-]{40,}|lsv2_[a-z]{2}_[a-z0-9]{20,}"),
    ("a key of W&B", rb"wandb_v1_[\w-]{20,}|local-[0-9a-f]{40}"),
    ("a key of Slack", rb"xox[abceoprs]-[\w-]{20,}|xapp-\d-[\w-]{20,}"),
    ("a key of Slack", rb"hooks\.slack\.com/(?:services|workflows)/[\w/]{20,}"),
    ("a key of npm", rb"npm_[A-Za-z0-9]{36}|_authToken=[\w-]{20,}"),
    ("a key of PyPI", rb"pypi-Ag[\w-]{50,}"),
    ("a key of Stripe", rb"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{20,}|whsec_[A-Za-z0-9+/]{30,}"),
    ("a key of SendGrid, Twilio or Mailgun",
     rb"SG\.[\w-]{20,}\.[\w-]{40,}|SK[0-9a-f]{32}|key-[0-9a-f]{32}"),
    ("a key of DigitalOcean, Databricks, Docker or Vault",
     rb"do[opr]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}|dckr_(?:pat|oat)_[\w-]{20,}"
     rb"|hv[sb]\.[\w-]{24,}"),
    ("a key of Telegram or Discord",
     rb"\d{8,10}:AA[\w-]{33}|discord(?:app)?\.com/api/webhooks/\d+/[\w-]{40,}"),
    ("a key, by the name beside it",
     rb"[A-Z][A-Z0-9_]{0,40}(?:KEY|TOKEN|SECRET|PASSWORD)[\"']?\s{0,3}[=:]\s{0,3}[\"']?"
     rb"[A-Za-z0-9_+/.-]{20,}"),
    ("a key, by the name beside it",
     rb"(?:api[_-]?key|secret|password|passwd|access[_-]?token|auth[_-]?token)[\"']?"
     rb"\s{0,3}[=:]\s{0,3}[\"']?(?=[\w+/.-]*\d)(?=[\w+/.-]*[A-Za-z])[\w+/.-]{20,}"),
    ("a key, by the name beside it",
     rb"(?i:authorization)[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?i:bearer|basic)\s"
     rb"[\w+/=.-]{16,}|machine\s+\S+\s+login\s+\S+\s+password\s+\S{8,}"),
)  # fmt: skip
# No form begins in the middle of a word.
_KEYS = [(kind, re.compile(rb"(?<![A-Za-z0-9])(?:" + form + rb")")) for kind, form in _FORMS]
_SHORTEST = 20
# Classes of bytes: printable, zero, other.
_PRINTABLE, _ZERO, _OTHER = b"a", b"\0", b"\1"
_CLASSES = b"".join(
    _PRINTABLE if 32 <= byte < 127 else _ZERO if byte == 0 else _OTHER for byte in range(256)
)
_IN_ASCII = _PRINTABLE * _SHORTEST
# Of the last character, the zero may stand before it.
_IN_UTF16 = (_PRINTABLE + _ZERO) * (_SHORTEST - 1)


def find_key(data: bytes, *, is_text: bool) -> str | None:
    """What kind of key a stretch of a file holds; None if none is seen.

    Args:
        data: Bytes of a text or of a binary file.
        is_text: Look at all of it; else only at runs of printable characters, as weights are large.
    """
    if is_text and (found := _match(data)):
        return found
    if is_text and b"\0" not in data:
        return None
    classes = data.translate(_CLASSES)
    runs = () if is_text else _runs(data, classes, _IN_ASCII, 1)
    for run in (*runs, *_runs(data, classes, _IN_UTF16, 2)):
        if found := _match(run):
            return found
    return None


def in_utf16(value: bytes) -> bytes:
    """The bytes of ASCII text inside its UTF-16 form, in either order of bytes."""
    return b"\0".join(value[at : at + 1] for at in range(len(value)))


def _match(text: bytes) -> str | None:
    return next((kind for kind, form in _KEYS if form.search(text)), None)


def _runs(data: bytes, classes: bytes, least: bytes, step: int) -> Iterator[bytes]:
    """Runs of printable characters, `step` bytes apart, at least `_SHORTEST` of them."""
    at = classes.find(least)
    while at >= 0:
        end = at + len(least)
        while classes.startswith(least[:step], end):
            end += step
        yield data[at : end + 1 : step]
        at = classes.find(least, end)
