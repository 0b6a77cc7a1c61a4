"""Folders in which one process works at a time.

The operating system holds the lock, so a killed process frees it at once; the lock file that it
leaves behind is harmless.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from rsearch_cli.errors import RunFolderOccupied, RunFolderUnwritable
from rsearch_cli.runs.confined_paths import make_private, refuse_escapes
from rsearch_cli.runs.file_locks import describe_holder
from rsearch_cli.runs.files import LOCK


@contextmanager
def lock_folder(folder: Path, activity: str) -> Iterator[None]:
    """Lock a folder while the block runs.

    Args:
        folder: Created if it does not exist; if it was created here and is empty at the end, it is
            removed.
        activity: What processes do in it, for the message: `training`, `evaluating`.

    Raises:
        RunFolderOccupied: Another process holds the lock.
        RunFolderUnwritable: The folder cannot be created or locked.
        RunFolderError: A link in it leads outside (see `refuse_escapes`).
    """
    refuse_escapes(folder)
    lock = filelock.FileLock(folder / LOCK)
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        make_private(folder)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunFolderOccupied(
            f"{describe_holder(folder / LOCK)} is {activity} in {folder}; wait until it ends, or "
            "choose another folder with --output-dir"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error, folder) from error
    try:
        yield
    finally:
        # Before the release: a process that locks a file which has been unlinked tries again.
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def check_writable(folder: Path) -> None:
    """Check that files can be written in a folder, which need not exist yet; leave nothing behind.

    Raises:
        RunFolderUnwritable: It is a file, or it or its nearest existing parent cannot be written.
        RunFolderError: A link in it leads outside (see `refuse_escapes`).
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
