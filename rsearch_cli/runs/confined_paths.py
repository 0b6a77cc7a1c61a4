"""Private folders, and writes that never leave a folder through a link.

A run folder that was sent, copied or unpacked may contain symbolic links, FIFOs and hard links. The
whole folder is checked before work in it begins, which also covers what TRL and W&B write there;
files that are changed in place are checked again when they are opened.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from rsearch_cli.errors import RunFolderError

# Absent on Windows. Without O_NONBLOCK, opening a FIFO waits for its other end.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner can enter; an existing one keeps its permissions.

    Raises:
        OSError: It cannot be created.
    """
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def refuse_escapes(folder: Path) -> None:
    """Check that no write in a folder can land outside it.

    Links to places inside the folder are allowed: W&B creates them.

    Args:
        folder: May be a link itself, and need not exist.

    Raises:
        RunFolderError: It contains a link that leads outside, a hard-linked file at the top level,
            or something that is neither a file nor a folder.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            problem = _find_escape(path, root)
            if problem is not None:
                raise RunFolderError(
                    f"{folder / path.relative_to(root)} {problem}; remove it, or replace it with a "
                    "plain copy: rsearch writes only inside its own folder"
                )


def open_own(path: str, flags: int, mode: int = 0o666) -> int:
    """Open a regular file without following links; an `opener` for `open`.

    Raises:
        RunFolderError: The path is a link or not a regular file, or it is opened for writing and
            has another hard link.
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
        problem = "is not a regular file"
    elif writing and status.st_nlink > 1:
        problem = "has another hard link"
    if problem is not None:
        os.close(descriptor)
        raise _refuse(path, problem)
    return descriptor


def copy_own(root: Path, name: str, target: Path, most: int) -> None:
    """Copy a file of a folder for publication.

    Args:
        root: The folder; may be a link itself.
        name: The file's path in it.
        target: Path of the copy.
        most: Largest permitted size in bytes.

    Raises:
        RunFolderError: It is not a regular file inside the folder, has another hard link, or is too
            large.
    """
    path = root / name
    if path.resolve() != root.resolve() / name:
        raise _refuse(path, "is a link, or is behind one")
    with open(path, "rb", opener=open_own) as file:
        status = os.fstat(file.fileno())
        if status.st_nlink > 1:
            raise _refuse(path, "has another hard link")
        if status.st_size > most:
            raise _refuse(path, f"has {status.st_size:,} bytes; at most {most:,} are expected")
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)


def _find_escape(path: Path, root: Path) -> str | None:
    try:
        status = path.lstat()
    except FileNotFoundError:  # another process works in the folder
        return None
    if stat.S_ISLNK(status.st_mode):
        target = Path(os.path.realpath(path))
        return None if target.is_relative_to(root) else f"is a link to {target}"
    if stat.S_ISREG(status.st_mode):
        shared = status.st_nlink > 1 and path.parent == root
        return "has another hard link" if shared else None
    return None if stat.S_ISDIR(status.st_mode) else "is neither a file nor a folder"


def _refuse(path: str | Path, problem: str) -> RunFolderError:
    return RunFolderError(f"{path} {problem}; remove it, or replace it with a plain copy")
