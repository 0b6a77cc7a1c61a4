"""A folder that one process at a time works in.

Place in the path: under the folders of a run and of an evaluation, around everything that changes
them. On failure: a folder that another process holds is `RunFolderOccupied`, one that cannot be
made or locked `RunFolderUnwritable`. What a killed process held is free at once, because the system
itself holds the lock; the file that it leaves behind stands in nobody's way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from rsearch_cli.errors import RunFolderOccupied, RunFolderUnwritable
from rsearch_cli.runs.confined_paths import refuse_escapes
from rsearch_cli.runs.file_locks import describe_holder
from rsearch_cli.runs.files import LOCK
from rsearch_cli.runs.private_files import make_private


@contextmanager
def claim_folder(folder: Path, doing: str) -> Iterator[None]:
    """Keep other processes out of a folder while the block runs.

    Args:
        folder: Made if it is not there; if it was made here and is empty at the end, it goes.
        doing: What processes do into it, for the message: `training`, `evaluating`.

    Raises:
        RunFolderOccupied: Another process holds it.
        RunFolderUnwritable: It cannot be made or locked.
        RunFolderError: It holds what leads out of it (see `refuse_escapes`).
    """
    refuse_escapes(folder)
    lock = filelock.FileLock(folder / LOCK)
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        make_private(folder)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunFolderOccupied(
            f"{describe_holder(folder / LOCK)} is {doing} into {folder}; wait for its end, or "
            "choose another with --output-dir"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error, folder) from error
    try:
        yield
    finally:
        # Before the release: a process that gets the lock of a file without a name tries again.
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def require_writable(folder: Path) -> None:
    """See whether files can be written in a folder, which may not be there yet; nothing stays.

    Raises:
        RunFolderUnwritable: It is a file, or the system refuses it or the nearest one that exists.
        RunFolderError: It holds what leads out of it (see `refuse_escapes`).
    """
    refuse_escapes(folder)
    nearest = folder
    try:
        if folder.is_file():
            raise RunFolderUnwritable(
                f"output folder {folder} is a file; choose another with --output-dir"
            )
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _unwritable(folder, error, nearest) from error


def _unwritable(folder: Path, error: OSError, nearest: Path) -> RunFolderUnwritable:
    where = "" if nearest == folder else f" at {nearest}"
    return RunFolderUnwritable(
        f"output folder {folder} cannot be written: {error.strerror}{where}; choose another with "
        "--output-dir"
    )
