"""The last look at every file before it leaves this machine.

All bytes of all files are read. Looked for are the values of environment variables that hold keys,
what looks like a key (see `secrets`), paths, internal addresses and user names of this machine, and
pickles, which run code when they are loaded. `PublishUnsafe` names file and kind, never the key.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rsearch_cli.errors import PublishUnsafe
from rsearch_cli.publish.secrets import find_key, in_utf16

SUFFIXES = {
    ".safetensors", ".json", ".jinja", ".txt", ".model", ".md", ".yaml", ".png", ".gguf",
}  # fmt: skip
"""What may be uploaded; everything else is refused, pickles among it."""

# Vocabularies hold words of all the world: there, only this machine's own words are looked for.
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
# Longer than any key or path that is looked for, so that none hides at the seam of two chunks.
_OVERLAP = 1024
# Names too common to mean a person.
_NOBODY = {"root", "user", "admin", "ubuntu", "runner", "jovyan", "docker", "nobody", "model"}


def scan_files(folder: Path, files: Sequence[str], token: str | None, owner: str) -> None:
    """Refuse files that hold what must not leave this machine.

    Args:
        folder: Where the files lie.
        files: Their paths in it.
        token: The Hub token in use, wherever it came from.
        owner: Name of the account on the Hub, which is public anyway.

    Raises:
        PublishUnsafe: Naming the file and what it holds; a key is named by its variable only.
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
                    f"{name} holds {found}; nothing was uploaded. Look at it in {folder}, mend "
                    "what it comes from in the run folder, and push again"
                )


def key_values(environment: Mapping[str, str]) -> dict[bytes, str]:
    """Values of the environment variables that hold keys, to what a message calls them."""
    return {
        value.encode(): f"the value of {name}"
        for name, value in environment.items()
        if _KEY_VARIABLE.search(name.upper()) and len(value) >= 8
    }


def own_paths(folder: Path) -> set[str]:
    """Paths that say something about this machine: home, run folder, working folder, temporary."""
    places = [Path.home(), Path.cwd(), folder, folder.resolve(), Path(tempfile.gettempdir())]
    return {str(place) for place in places if len(place.parts) > 2}


def _find_pattern(chunk: bytes, name: str, owner: str, *, is_first: bool) -> str | None:
    """What a stretch of a file holds that looks like what it must not, in words, or None.

    Paths, addresses and names are looked for in text, and in the header of weights, where their
    metadata lies: the rest of them is numbers.
    """
    is_text = Path(name).suffix not in _BINARY
    if kind := find_key(chunk, is_text=is_text):
        return f"what looks like {kind}"
    if Path(name).suffix == ".safetensors" and is_first:
        chunk, is_text = chunk[8 : 8 + int.from_bytes(chunk[:8], "little")], True
    if not is_text or Path(name).name in VOCABULARIES:
        return None
    if _CREDENTIALS_IN_URL.search(chunk):
        return "a URL with a password in it"
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
    """Where a user name is one: a short plain word (`will`) only in a path or an address."""
    name = re.escape(user.encode())
    if len(user) < 8 and user.isalpha():
        return re.compile(rb"[/\\]" + name + rb"\b|\b" + name + rb"@")
    return re.compile(rb"\b" + name + rb"\b")


def _refuse_pickle(path: Path, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    if path.suffix not in SUFFIXES or head.startswith(_PICKLE_HEADS):
        raise PublishUnsafe(
            f"{name} is or may be a pickle, which runs code when it is loaded; only "
            f"{', '.join(sorted(SUFFIXES))} are pushed, weights as safetensors or GGUF"
        )


def _chunks(path: Path) -> Iterator[bytes]:
    """Stretches of a file, each with the end of the one before it."""
    with path.open("rb") as file:
        tail = b""
        while data := file.read(_CHUNK):
            yield tail + data
            tail = data[-_OVERLAP:]
