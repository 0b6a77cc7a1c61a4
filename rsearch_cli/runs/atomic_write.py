"""Files and folders that are made beside their place, and put there once they are whole.

Place in the path: under the folders of a run and of an evaluation. A file is replaced by a file in
one go, a folder by a folder is not: the old one is moved out first. On failure: a write that fails
is a `RunUnsaved`, whichever library made it; a kill between the two moves leaves both folders whole
in the staging area, and `finish_swaps` puts the new one where it belongs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rsearch_cli.errors import RunUnsaved
from rsearch_cli.runs.files import PARTIAL

REPLACED = ".replaced"
"""Where in the staging area a folder waits for its removal once a new one has its place."""

# How safetensors and PyTorch, which raise no OSError, say that a write failed.
_WRITE_FAILURES = ("I/O error", "iostream error", "inline_container")


@contextmanager
def saving(folder: Path, name: str, describe_resume: Callable[[], str]) -> Iterator[None]:
    """Take a failed write in the block for what it is, whichever library made it.

    Args:
        folder: Of the run.
        name: What is written, for the message.
        describe_resume: Says, for the message, how the run goes on once there is room.

    Raises:
        RunUnsaved: With the reason and the room that is left on the disk.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not any(
            words in str(error) for words in _WRITE_FAILURES
        ):
            raise
        # Only an OSError names its reason in words that are fit for a person.
        reason = getattr(error, "strerror", None) or "the write failed"
        free = shutil.disk_usage(folder).free / 1e6
        raise RunUnsaved(
            f"{name} could not be written in {folder}: {reason} ({free:.1f} MB are free); "
            f"make room, then {describe_resume()}"
        ) from error


@contextmanager
def staged(folder: Path, name: str, describe_resume: Callable[[], str]) -> Iterator[Path]:
    """Let the block make a file or folder, and put it in its place once it is whole.

    Args:
        folder: Of the run.
        name: Its place in the folder, at the top for a folder; what is there is replaced.
        describe_resume: As for `saving`.

    Yields:
        Where the block makes it; the parent is there.

    Raises:
        RunUnsaved: A write failed; the old one is still there, or the new one is, whole.
    """
    made = folder / PARTIAL / name
    try:
        with saving(folder, name, describe_resume):
            made.parent.mkdir(parents=True, exist_ok=True)
            yield made
            put_in_place(folder, name)
    finally:
        finish_swaps(folder)
        shutil.rmtree(folder / PARTIAL, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Let the block write a draft of a file, which takes the file's place at the end.

    The draft lies in a new folder of this user's beside the file, where nobody can have put a link.

    Args:
        path: The file; its folder exists. A link there is replaced, and not followed.

    Raises:
        OSError: Something cannot be written; the old file is still there.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        state = Path(folder, path.name)
        yield state
        os.replace(state, path)


def put_in_place(folder: Path, name: str) -> None:
    """Give what was made in the staging area its place in the folder.

    Args:
        folder: Of the run.
        name: What was made; a folder is named without a parent.

    Raises:
        OSError: It could not be flushed or moved.
    """
    made, target = folder / PARTIAL / name, folder / name
    flush_to_disk(made)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        old = folder / PARTIAL / REPLACED / name
        if old.exists():
            shutil.rmtree(old)
        old.parent.mkdir(parents=True, exist_ok=True)
        os.replace(target, old)
    os.replace(made, target)
    flush_to_disk(target.parent, deep=False)


def finish_swaps(folder: Path) -> None:
    """Fill the places of folders whose replacement was cut short, so that none stays empty.

    Raises:
        OSError: A folder could not be moved.
    """
    for old in (folder / PARTIAL / REPLACED).glob("*"):
        made, target = folder / PARTIAL / old.name, folder / old.name
        if not target.exists():
            # Whole: it was flushed to the disk before the old one was moved.
            os.replace(made if made.exists() else old, target)


def flush_to_disk(path: Path, *, deep: bool = True) -> None:
    """Have the system write a file, or a folder and with `deep` all that is in it, to the disk."""
    if os.name != "posix":
        return  # a folder cannot be opened there, nor a file flushed that is open to be read
    if path.is_dir():
        for inner in path.iterdir() if deep else ():
            flush_to_disk(inner)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot flush a folder; its files count, and they can be.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
