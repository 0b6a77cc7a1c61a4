"""Write files and folders beside their destination and move them into place when complete.

A file replaces a file in one step. A folder does not: the old one is moved out first, and a kill
between the two moves leaves both complete in the staging area, from where `finish_swaps` restores
the new one.
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
"""Folder in the staging area for old folders whose replacement is being moved into place."""

# How safetensors and PyTorch, which raise no OSError, report a failed write.
_WRITE_FAILURES = ("I/O error", "iostream error", "inline_container")


@contextmanager
def saving(folder: Path, name: str, describe_resume: Callable[[], str]) -> Iterator[None]:
    """Turn a failed write in the block into a `RunUnsaved`, whichever library made it.

    Args:
        folder: The run folder.
        name: What is written, for the message.
        describe_resume: Returns how to continue once there is room, for the message.

    Raises:
        RunUnsaved: With the reason and the free space on the disk.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not any(
            words in str(error) for words in _WRITE_FAILURES
        ):
            raise
        # Only an OSError has a reason that is fit for a message.
        reason = getattr(error, "strerror", None) or "the write failed"
        free = shutil.disk_usage(folder).free / 1e6
        raise RunUnsaved(
            f"{name} could not be written in {folder}: {reason} ({free:.1f} MB free); free some "
            f"space, then {describe_resume()}"
        ) from error


@contextmanager
def staged(folder: Path, name: str, describe_resume: Callable[[], str]) -> Iterator[Path]:
    """Let the block write a file or folder, then move it into place.

    Args:
        folder: The run folder.
        name: Its place in the folder, without a parent for a folder; an old one is replaced.
        describe_resume: As for `saving`.

    Yields:
        The path to write to; its parent exists.

    Raises:
        RunUnsaved: A write failed; either the old one or the complete new one is in place.
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
    """Let the block write a new version of a file, then put it in the file's place.

    The new version is in a new private folder beside the file, where nobody can have put a link.

    Args:
        path: The file; its folder exists. A link there is replaced, not followed.

    Raises:
        OSError: Something cannot be written; the old file is unchanged.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        state = Path(folder, path.name)
        yield state
        os.replace(state, path)


def put_in_place(folder: Path, name: str) -> None:
    """Move a file or folder from the staging area to its place.

    Args:
        folder: The run folder.
        name: Its name in both; a folder's has no parent.

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
    """Complete the replacements of folders that were cut short, so that no place stays empty.

    Raises:
        OSError: A folder could not be moved.
    """
    for old in (folder / PARTIAL / REPLACED).glob("*"):
        made, target = folder / PARTIAL / old.name, folder / old.name
        if not target.exists():
            # Complete: it was flushed to disk before the old one was moved.
            os.replace(made if made.exists() else old, target)


def flush_to_disk(path: Path, *, deep: bool = True) -> None:
    """Flush a file to disk, or a folder and, with `deep`, everything in it."""
    if os.name != "posix":
        return  # Windows cannot open a folder, nor flush a file that is open for reading
    if path.is_dir():
        for inner in path.iterdir() if deep else ():
            flush_to_disk(inner)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot flush a folder; its files matter, and they can be.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
