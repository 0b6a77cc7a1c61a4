"""Files and folders that are made beside their place, and put there once they are whole.

Place in the path: under the folder of a run. A file is replaced by a file in one go, a folder by a
folder is not: the old one is moved out first. On failure: a kill between the two leaves both of
them whole in the staging area, and `finish_swaps` puts the new one where it belongs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PARTIAL = ".partial"
"""Name of the staging area in a folder."""

REPLACED = ".replaced"
"""Where in the staging area a folder waits for its removal once a new one has its place."""


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
