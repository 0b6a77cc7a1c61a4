"""Folders whose content may be somebody else's: nothing is written outside of them through a link.

A run folder that was sent, copied or unpacked may hold symbolic links, FIFOs and files with a
second name elsewhere. A folder is checked as a whole before work in it begins, which also covers
what TRL and W&B write there; files that are changed in place are checked again as they are opened.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from rsearch_cli.errors import RunFolderError

# Absent on Windows. Without O_NONBLOCK, opening a FIFO waits for its other end.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def refuse_escapes(folder: Path) -> None:
    """Check that a folder holds nothing through which a write would land outside of it.

    Links to places inside the folder are allowed: W&B makes them.

    Args:
        folder: May be a link itself, and need not exist.

    Raises:
        RunFolderError: It holds a link that leads out, a file at the top that has a second name
            (hard link), or what is neither file nor folder.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            problem = _find_escape(path, root)
            if problem is not None:
                raise RunFolderError(
                    f"{folder / path.relative_to(root)} {problem}, and rsearch writes nothing "
                    "outside of a run's own folder; remove it, or put a plain copy in its place"
                )


def open_own(path: str, flags: int, mode: int = 0o666) -> int:
    """An `opener` for `open` that takes regular files only, and follows no link.

    Raises:
        RunFolderError: The path is a link or no regular file, or it is to be written to and has a
            second name (hard link).
    """
    try:
        descriptor = os.open(path, flags | _SAFELY, mode)
    except OSError:
        if Path(path).is_symlink():
            raise _refuse(path, "is a link") from None
        raise
    status = os.fstat(descriptor)
    writing = flags & (os.O_WRONLY | os.O_RDWR)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = "is no regular file"
    elif writing and status.st_nlink > 1:
        problem = "has a second name (hard link)"
    if problem is not None:
        os.close(descriptor)
        raise _refuse(path, problem)
    return descriptor


def copy_own(root: Path, name: str, target: Path, most: int) -> None:
    """Copy a file of a folder, to be given away.

    Args:
        root: The folder; may be a link itself.
        name: The file's path in it.
        target: Where to.
        most: Bytes that the file may have.

    Raises:
        RunFolderError: It is no regular file in the folder, has a second name (hard link), or is
            larger.
    """
    path = root / name
    if path.resolve() != root.resolve() / name:
        raise _refuse(path, "is a link, or lies behind one")
    with open(path, "rb", opener=open_own) as file:
        status = os.fstat(file.fileno())
        if status.st_nlink > 1:
            raise _refuse(path, "has a second name (hard link)")
        if status.st_size > most:
            raise _refuse(path, f"has {status.st_size:,} bytes, and at most {most:,} are expected")
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)


def _find_escape(path: Path, root: Path) -> str | None:
    try:
        status = path.lstat()
    except FileNotFoundError:  # another process is at work in the folder
        return None
    if stat.S_ISLNK(status.st_mode):
        target = Path(os.path.realpath(path))
        return None if target.is_relative_to(root) else f"is a link to {target}"
    if stat.S_ISREG(status.st_mode):
        shared = status.st_nlink > 1 and path.parent == root
        return "has a second name (hard link)" if shared else None
    return None if stat.S_ISDIR(status.st_mode) else "is neither a file nor a folder"


def _refuse(path: str | Path, problem: str) -> RunFolderError:
    return RunFolderError(f"{path} {problem}; remove it, or put a plain copy in its place")
