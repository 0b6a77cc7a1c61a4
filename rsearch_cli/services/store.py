"""Text by key on disk, shared by threads and processes: SQLite with a write-ahead log (diskcache).

A store that is damaged or of another version is renamed and a new one created; with a folder that
cannot be used, every lookup is a miss. Either is one warning. A read-only store can be read.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import filelock

from rsearch_cli.runs.confined_paths import make_private
from rsearch_cli.runs.file_locks import LockWait, describe_holder

if TYPE_CHECKING:
    import diskcache

logger = logging.getLogger(__name__)

FORMAT = "rsearch answers 1\n"
"""Content of the file `format`; increase the number when older readers would misread the store."""

SIZE_LIMIT = 2 * 2**30
"""Bytes on disk above which the oldest entries are evicted."""

_DATABASE = "cache.db"
# Offset of the lock of SQLite's writer (WAL_WRITE_LOCK in its file format).
_SHARED, _WRITE_LOCK = "cache.db-shm", 120
_BUSY_SECONDS = 0.5
_POLL_SECONDS = 0.02
# Never a file of its own for a large value: one commit holds a whole entry.
_NEVER_A_FILE = 2**40

_SELECT = "SELECT value FROM Cache WHERE key = ? AND raw = 1"

T = TypeVar("T")


class TextStore:
    """Text by key in a folder, opened on first use.

    Args:
        folder: Where the database is; it is not touched yet.

    Attributes:
        usable: False once the folder has turned out to be unusable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.usable = True
        self._lock = threading.RLock()
        self._cache: diskcache.Cache | None = None
        self._reader: sqlite3.Connection | None = None
        self._inode = 0
        self._read_only: bool | None = None

    def get(self, key: str) -> str | None:
        """Return the text stored under a key, or None.

        Raises:
            ValueError: The entry is not text.
        """
        if self._is_read_only():
            return self._read(key)
        return self._use(lambda cache: self._select(key), None)

    def put(self, key: str, text: str, tag: str) -> bool:
        """Store a text under a key, replacing an older one; return whether it is stored."""
        return bool(self._use(lambda cache: cache.set(key, text, tag=tag), False))

    def put_all(self, rows: Sequence[tuple[str, str, str]]) -> bool:
        """Store keys, texts and tags in one transaction; return whether they are stored."""

        def keep(cache: diskcache.Cache) -> bool:
            with cache.transact():
                return all([cache.set(key, text, tag=tag) for key, text, tag in rows])

        return self._use(keep, False)

    def drop(self, key: str) -> None:
        """Remove the text under a key, if possible."""
        if not self._is_read_only():
            self._use(lambda cache: cache.delete(key), False)

    def remove(self, tag: str | None) -> int:
        """Remove everything with a tag, or everything; return the number of texts."""

        def sweep(cache: diskcache.Cache) -> int:
            return cache.clear() if tag is None else cache.evict(tag)

        return self._use(sweep, 0)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield key, text and tag of all entries, ordered by key, from one snapshot."""
        if not self._is_read_only() and not self._use(lambda cache: True, False):
            return
        query = "SELECT key, value, tag FROM Cache WHERE typeof(value) = 'text' ORDER BY key"
        try:
            with closing(self._connect()) as connection:
                yield from connection.execute(query)
        except sqlite3.DatabaseError as error:
            self._recover(error)

    def size_bytes(self) -> int:
        """Return the size of the folder in bytes."""
        return sum(p.stat().st_size for p in self.folder.glob("*") if p.is_file())

    def close(self) -> None:
        """Close the connections of the calling thread; the next use opens them again."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            if self._cache is not None:
                self._cache.close()
                self._cache = None

    def _use(self, action: Callable[[diskcache.Cache], T], otherwise: T) -> T:
        """Run `action` on the open store, and once more on a new one if it was renamed.

        Retries while another process is writing, until `LockWait.is_over`.
        """
        if self._is_read_only():
            self._give_up("is read-only; new answers are not stored")
            return otherwise
        import diskcache

        attempts = 2
        wait: LockWait | None = None
        while attempts:
            # An empty diskcache.Cache is false: compare with None.
            cache = self._cache
            try:
                if cache is None:
                    cache = self._open()
                return otherwise if cache is None else action(cache)
            except diskcache.Timeout:
                wait = wait or self._wait_for_writer()
                if wait.is_over():
                    why = f"{self._describe_writer()} writes into it"
                    self._give_up(f"cannot be used ({why}); continuing without it")
                    return otherwise
            except (sqlite3.DatabaseError, OSError) as error:
                attempts -= 1
                self._recover(error)
        return otherwise

    def _select(self, key: str) -> str | None:
        """Look a text up without diskcache, whose `get` takes twice as long."""
        with self._lock:
            if self._reader is None:
                path = self.folder / _DATABASE
                self._reader = sqlite3.connect(path, _BUSY_SECONDS, check_same_thread=False)
            row = self._reader.execute(_SELECT, (key,)).fetchone()
        return _text_of(row)

    def _open(self) -> diskcache.Cache | None:
        with self._lock:
            if self._cache is None and self.usable:
                import diskcache

                with self._alone():
                    self._begin()
                    self._require_writable()
                    self._cache = diskcache.Cache(
                        str(self.folder),
                        timeout=_BUSY_SECONDS,
                        disk=_text_disk(),
                        size_limit=SIZE_LIMIT,
                        disk_min_file_size=_NEVER_A_FILE,
                    )
                    self._inode = self._current_inode()
            return self._cache

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock for creating, opening or renaming the folder.

        If the lock is held for too long, an existing store is opened without it.

        Raises:
            OSError: The lock cannot be taken, and a store has to be created.
        """
        make_private(self.folder.parent)
        path = self.folder.with_name(f".{self.folder.name}.lock")
        lock = filelock.FileLock(path)
        wait = LockWait(path, f"the answer cache {self.folder}", "this process continues")
        try:
            lock.acquire(poll_interval=_POLL_SECONDS, cancel_check=wait.is_over)
        except filelock.Timeout:
            if not self._is_there():
                raise OSError(errno.EAGAIN, f"{describe_holder(path)} holds it") from None
        try:
            yield
        finally:
            if lock.is_locked:
                lock.release()

    def _require_writable(self) -> None:
        """Wait until no other process writes; opening would wait longer, and silently.

        Raises:
            OSError: Another process keeps writing.
        """
        database, wait = self.folder / _DATABASE, self._wait_for_writer()
        while database.exists():
            try:
                with closing(sqlite3.connect(database, _POLL_SECONDS, isolation_level=None)) as db:
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("ROLLBACK")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    return  # opening it reports what it is
                if wait.is_over():
                    holder = self._describe_writer()
                    raise OSError(errno.EAGAIN, f"{holder} writes into it") from None

    def _wait_for_writer(self) -> LockWait:
        what = f"the answer cache {self.folder}, to write into it"
        then = "this process continues without it"
        return LockWait(self.folder / _SHARED, what, then, place=_WRITE_LOCK)

    def _describe_writer(self) -> str:
        return describe_holder(self.folder / _SHARED, _WRITE_LOCK)

    def _begin(self) -> None:
        """Create the folder if needed; one of another version is renamed first."""
        if self._is_there():
            return
        mark = self.folder / "format"
        if self.folder.is_file():
            self._set_aside("is a file")
        elif (self.folder / _DATABASE).exists():
            found = mark.read_text(encoding="utf-8", errors="replace") if mark.exists() else ""
            named = repr(found[:40].strip()) if found else "unnamed"
            self._set_aside(f"is of another version ({named}, not {FORMAT.strip()!r})")
        make_private(self.folder)
        mark.write_text(FORMAT, encoding="utf-8")

    def _is_read_only(self) -> bool:
        """Whether there is a store that this process cannot write to."""
        if self._read_only is None:
            paths = (self.folder, self.folder / _DATABASE)
            writable = all(os.access(path, os.W_OK) for path in paths)
            self._read_only = not writable and self._is_there()
        return self._read_only

    def _connect(self) -> sqlite3.Connection:
        """Open a connection; a read-only store is opened without its write-ahead log."""
        if not self._is_read_only():
            return sqlite3.connect(self.folder / _DATABASE)
        address = f"{(self.folder / _DATABASE).absolute().as_uri()}?mode=ro"
        has_log = (self.folder / _SHARED).exists()
        return sqlite3.connect(address if has_log else f"{address}&immutable=1", uri=True)

    def _read(self, key: str) -> str | None:
        """Look a text up in a read-only store.

        Raises:
            ValueError: The entry is not text.
        """
        try:
            with closing(self._connect()) as connection:
                row = connection.execute(_SELECT, (key,)).fetchone()
        except (sqlite3.DatabaseError, OSError) as error:
            self._give_up(f"cannot be read ({error}); continuing without it")
            return None
        return _text_of(row)

    def _is_there(self) -> bool:
        """Whether there is a store of this version."""
        mark = self.folder / "format"
        if not (self.folder / _DATABASE).exists() or not mark.exists():
            return False
        return mark.read_text(encoding="utf-8", errors="replace") == FORMAT

    def _recover(self, error: Exception) -> None:
        """Rename a damaged store; if the folder itself is the problem, continue without one.

        SQLite reports damage as a plain DatabaseError, and a full disk or a missing permission as
        an OperationalError: renaming would not help there, and would lose an intact store.
        """
        with self._lock:
            self.close()
            damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
                error, sqlite3.OperationalError
            )
            try:
                if damaged:
                    with self._alone():
                        # Otherwise another process has renamed it already, and this is the new one.
                        if self._inode in (0, self._current_inode()):
                            self._set_aside(f"is damaged ({error})")
                    return
            except OSError as second:
                error = second
            why = getattr(error, "strerror", None) or str(error)
            self._give_up(f"cannot be used ({why}); continuing without it")

    def _give_up(self, what: str) -> None:
        if self.usable:
            logger.warning(f"answer cache {self.folder} {what}")
        self.usable = False
        self.close()

    def _current_inode(self) -> int:
        try:
            return (self.folder / _DATABASE).stat().st_ino
        except OSError:
            return 0

    def _set_aside(self, why: str) -> None:
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.aside-{number}")).exists():
            number += 1
        os.replace(self.folder, aside)
        self._inode = 0
        logger.warning(f"answer cache {self.folder} {why}; set aside as {aside}")


def _text_of(row: tuple[object] | None) -> str | None:
    """Return the text of a row of the database; None if there is no row.

    Raises:
        ValueError: The entry is not text.
    """
    if row is None:
        return None
    if not isinstance(row[0], str):
        raise ValueError("the entry is not text")
    return row[0]


def _text_disk() -> Any:
    """Return a diskcache.Disk that never unpickles, whatever the database contains."""
    import diskcache

    class TextDisk(diskcache.Disk):
        def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> str:
            if filename is not None or not isinstance(value, str):
                raise ValueError("the entry is not text")
            return value

    return TextDisk
