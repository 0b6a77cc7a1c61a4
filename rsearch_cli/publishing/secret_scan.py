"""Last check of every file before upload: keys, local paths, internal addresses and pickles.

Reads every byte of every file. Errors name the file and the kind of finding, never the key itself.
The key formats are those that the services themselves or common secret scanners document; keys
without a format of their own, such as Exa's UUIDs, are recognised by the name next to them.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rsearch_cli.errors import PublishUnsafe

SUFFIXES = {
    ".safetensors", ".json", ".jinja", ".txt", ".model", ".md", ".yaml", ".png", ".gguf",
}  # fmt: skip
"""File types that may be uploaded; pickles, among others, may not."""

# Vocabularies contain arbitrary words: only keys and this machine's own paths are searched there.
VOCABULARIES = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"}
_BINARY = {".safetensors", ".gguf", ".png", ".model"}

_KEY_VARIABLE = re.compile(r"(?:_|^)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)\Z")
_CREDENTIALS_IN_URL = re.compile(rb"[a-z]://[^\s/@:]+:[^\s/@]+@")
_PATHS = re.compile(
    rb"(?<![\w.:/~-])/(?:home|Users|root|mnt|tmp|var|opt|srv|usr|etc|work|workspace|data|scratch"
    rb"|private|Volumes|content|kaggle|gpfs|lustre)/[\w.+-]+"
    rb"|(?<![A-Za-z])[A-Za-z]:\\{1,2}(?:Users|Documents)"
)
_INTERNAL = re.compile(
    rb"\b(?:https?|wss?|s3|gs|nfs|smb|postgres\w*|mysql|redis|mongodb)://(?:localhost|127\.|10\."
    rb"|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.|\[|[\w-]+(?:[:/\s]|$)"
    rb"|[\w.-]+\.(?:internal|intranet|local|lan|corp|home|private)\b)[^\s\"'<>)]{0,40}"
)
_PICKLE_HEADS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_CHUNK = 1 << 24
# Longer than any key or path, so that none is missed where two chunks meet.
_OVERLAP = 1024
# Names too common to identify a person.
_NOBODY = {"root", "user", "admin", "ubuntu", "runner", "jovyan", "docker", "nobody", "model"}

# Name in messages, and format. Each format has at least `_SHORTEST` printable characters.
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
# No key starts in the middle of a word.
_KEYS = [(kind, re.compile(rb"(?<![A-Za-z0-9])(?:" + form + rb")")) for kind, form in _FORMS]
_SHORTEST = 20
# Byte classes: printable, zero, other.
_PRINTABLE, _ZERO, _OTHER = b"a", b"\0", b"\1"
_CLASSES = b"".join(
    _PRINTABLE if 32 <= byte < 127 else _ZERO if byte == 0 else _OTHER for byte in range(256)
)
_IN_ASCII = _PRINTABLE * _SHORTEST
# In big-endian order the zero of the last character comes first.
_IN_UTF16 = (_PRINTABLE + _ZERO) * (_SHORTEST - 1)


def scan_files(folder: Path, files: Sequence[str], token: str | None, owner: str) -> None:
    """Refuse files with content that must not leave this machine.

    Args:
        folder: Folder of the files.
        files: Their relative paths.
        token: The Hub token in use, wherever it came from.
        owner: Name of the account on the Hub, which is public anyway.

    Raises:
        PublishUnsafe: A file contains a key, a local path, an internal address, a user name or a
            pickle.
    """
    secrets = key_values(os.environ)
    if token:
        secrets = {token.encode(): "the Hub token"} | secrets
    places = {place.encode(): "a path of this machine" for place in own_paths(folder)}
    exact = secrets | places
    exact |= {in_utf16(value): called for value, called in exact.items()}
    for name in files:
        _refuse_pickle(folder / name, name)
        for position, chunk in enumerate(_chunks(folder / name)):
            found = next((called for value, called in exact.items() if value in chunk), None)
            found = found or _find_pattern(chunk, name, owner, is_first=position == 0)
            if found is not None:
                raise PublishUnsafe(
                    f"{name} contains {found}; nothing uploaded; inspect it in {folder}, remove "
                    "its cause from the run folder, and push again"
                )


def key_values(environment: Mapping[str, str]) -> dict[bytes, str]:
    """Return the values of environment variables that contain keys, with their name in messages."""
    return {
        value.encode(): f"the value of {name}"
        for name, value in environment.items()
        if _KEY_VARIABLE.search(name.upper()) and len(value) >= 8
    }


def own_paths(folder: Path) -> set[str]:
    """Return paths that reveal something about this machine, such as home and working directory."""
    places = [Path.home(), Path.cwd(), folder, folder.resolve(), Path(tempfile.gettempdir())]
    return {str(place) for place in places if len(place.parts) > 2}


def _find_pattern(chunk: bytes, name: str, owner: str, *, is_first: bool) -> str | None:
    """Return a description of forbidden content in a chunk of a file, or None.

    Paths, addresses and names are searched for in text and in the header of weights, which contains
    their metadata.
    """
    is_text = Path(name).suffix not in _BINARY
    if kind := find_key(chunk, is_text=is_text):
        return f"what looks like {kind}"
    if Path(name).suffix == ".safetensors" and is_first:
        chunk, is_text = chunk[8 : 8 + int.from_bytes(chunk[:8], "little")], True
    if not is_text or Path(name).name in VOCABULARIES:
        return None
    if _CREDENTIALS_IN_URL.search(chunk):
        return "a URL with a password"
    if address := _INTERNAL.search(chunk):
        return f"the internal address {address.group().decode(errors='replace')}"
    if path := _PATHS.search(chunk):
        return f"the path {path.group().decode(errors='replace')}"
    user = _own_name()
    if user.lower() not in _NOBODY | {"", owner.lower()} and _name_pattern(user).search(chunk):
        return f"the user name {user}"
    return None


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no entry for its user
        return ""


def _name_pattern(user: str) -> re.Pattern[bytes]:
    """Return a user name's pattern; a short plain word (`will`) counts only in paths and emails."""
    name = re.escape(user.encode())
    if len(user) < 8 and user.isalpha():
        return re.compile(rb"[/\\]" + name + rb"\b|\b" + name + rb"@")
    return re.compile(rb"\b" + name + rb"\b")


def _refuse_pickle(path: Path, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    if path.suffix not in SUFFIXES or head.startswith(_PICKLE_HEADS):
        raise PublishUnsafe(
            f"{name} is or may be a pickle, which runs code when loaded; only "
            f"{', '.join(sorted(SUFFIXES))} are published, weights as safetensors or GGUF"
        )


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield a file in chunks, each preceded by the end of the one before."""
    with path.open("rb") as file:
        tail = b""
        while data := file.read(_CHUNK):
            yield tail + data
            tail = data[-_OVERLAP:]


def find_key(data: bytes, *, is_text: bool) -> str | None:
    """Return the kind of the first key in a chunk of a file, or None.

    Args:
        data: Bytes of a text or binary file.
        is_text: Search everything; in binary files, which can be large, only runs of printable
            characters are searched.
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
    """Return the bytes that ASCII text has in UTF-16 of either byte order."""
    return b"\0".join(value[at : at + 1] for at in range(len(value)))


def _match(text: bytes) -> str | None:
    return next((kind for kind, form in _KEYS if form.search(text)), None)


def _runs(data: bytes, classes: bytes, least: bytes, step: int) -> Iterator[bytes]:
    """Yield runs of at least `_SHORTEST` printable characters that are `step` bytes apart."""
    at = classes.find(least)
    while at >= 0:
        end = at + len(least)
        while classes.startswith(least[:step], end):
            end += step
        yield data[at : end + 1 : step]
        at = classes.find(least, end)
