"""One small JSON document that the processes of a run change in turn; a kill leaves it whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from rsearch_cli.errors import RunFolderError, RunFolderOccupied, RunFolderUnwritable
from rsearch_cli.runs.confined_paths import make_private, open_own
from rsearch_cli.runs.file_locks import Patience, describe_holder
from rsearch_cli.runs.json_text import dump_json

# Bytes; a page of memory on all common systems, and room for twenty services.
_PAGE = 4096


def lock_name(name: str) -> str:
    """Name of the lock beside a document of that name."""
    return f".{name}.lock"


def describe_damage(path: Path, error: Exception) -> RunFolderError:
    """What to raise for a document that says nothing sensible."""
    return RunFolderError(
        f"{path} does not say what the run has spent ({error}); mend it, or start a new run in "
        "another --output-dir"
    )


class SharedPage:
    """The document on disk, which processes open one after the other.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        """Name the file without touching it."""
        self.path = path
        self._lock = filelock.FileLock(path.with_name(lock_name(path.name)), thread_local=False)
        self._file = -1

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep the file open for this process alone.

        Raises:
            RunFolderUnwritable: It cannot be made or opened.
            RunFolderOccupied: Another process holds it for too long.
        """
        try:
            make_private(self.path.parent)
            patience = Patience(
                Path(self._lock.lock_file), f"what {self.path} says is spent", "this run ends"
            )
            with self._lock.acquire(poll_interval=0.002, cancel_check=patience.is_over):
                self._file = open_own(str(self.path), os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    yield
                finally:
                    os.close(self._file)
        except filelock.Timeout:
            holder = describe_holder(Path(self._lock.lock_file))
            raise RunFolderOccupied(
                f"{self.path}, where the run keeps what it spends, is held by {holder}; end that "
                "process or let it go on, then start again"
            ) from None
        except OSError as error:
            raise RunFolderUnwritable(
                f"{self.path}, where the run keeps what it spends, cannot be used: {error.strerror}"
            ) from error

    def read(self) -> Any:
        """What has been stored, or None if nothing has.

        Raises:
            RunFolderError: It is not JSON.
        """
        text = os.read(self._file, _PAGE)
        try:
            # A kill between making the file and the first write leaves it empty.
            return json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise describe_damage(self.path, error) from error

    def write(self, document: Any) -> None:
        """Store the document whole.

        One write of one page: a kill leaves the old document or the new. Replacing the file would
        do so too, at fifty times the price on file systems that flush what replaces another file.
        """
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, dump_json(document).ljust(_PAGE - 1).encode() + b"\n")
