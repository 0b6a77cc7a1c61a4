"""The store: text by key on disk, shared by threads and processes.

Place in the path: under the cache, which knows what the text means. It is SQLite with a write-ahead
log (by diskcache): what was put is there for all at once and survives a kill. On failure: a store
that is damaged or of another version is set aside under another name and a new one begun; a folder
that cannot be used is left alone, and everything is a miss. Either is said in one line on stderr.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import filelock

from rsearch_cli.storage.private import make_private

if TYPE_CHECKING:
    import diskcache

FORMAT = "rsearch answers 1\n"
"""What the file `format` in the folder says; raise the number when an older reader would err."""

SIZE_LIMIT = 2 * 2**30
"""Bytes on disk after which the oldest entries go."""

_DATABASE = "cache.db"
# Nothing is kept outside the database: one commit holds an entry whole.
_NEVER_A_FILE = 2**40

T = TypeVar("T")


class TextStore:
    """Text by key in a folder; opened on first use, in as many processes as like.

    Attributes:
        folder: Where the database is.
        usable: False once it has shown that the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder without touching it."""
        self.folder = folder
        self.usable = True
        self._guard = threading.RLock()
        self._cache: diskcache.Cache | None = None
        self._inode = 0

    def get(self, key: str) -> str | None:
        """Look a text up.

        Raises:
            ValueError: What stands there is no text.
        """
        text: str | None = self._use(lambda cache: cache.get(key, retry=True), None)
        return text

    def put(self, key: str, text: str, tag: str) -> bool:
        """Keep a text under a key, in place of an older one; whether it is kept."""
        return bool(self._use(lambda cache: cache.set(key, text, tag=tag, retry=True), False))

    def put_all(self, rows: Sequence[tuple[str, str, str]]) -> bool:
        """Keep texts with their keys and tags, all in one transaction; whether they are kept."""

        def keep(cache: diskcache.Cache) -> bool:
            with cache.transact(retry=True):
                return all([cache.set(key, text, tag=tag) for key, text, tag in rows])

        return self._use(keep, False)

    def drop(self, key: str) -> None:
        """Remove the text under a key, if there is one."""
        self._use(lambda cache: cache.delete(key, retry=True), False)

    def remove(self, tag: str | None) -> int:
        """Remove everything with this tag, or everything; how many texts that were."""

        def sweep(cache: diskcache.Cache) -> int:
            return cache.clear(retry=True) if tag is None else cache.evict(tag, retry=True)

        return self._use(sweep, 0)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Key, text and tag of everything, in the order of the keys, as it is at this moment."""
        if not self._use(lambda cache: True, False):
            return
        query = "SELECT key, value, tag FROM Cache WHERE typeof(value) = 'text' ORDER BY key"
        try:
            with closing(sqlite3.connect(self.folder / _DATABASE)) as connection:
                yield from connection.execute(query)
        except sqlite3.DatabaseError as error:
            self._recover(error)

    def size_bytes(self) -> int:
        """Bytes that the folder takes up."""
        return sum(p.stat().st_size for p in self.folder.glob("*") if p.is_file())

    def close(self) -> None:
        """Close the calling thread's files; the next use opens them again."""
        with self._guard:
            if self._cache is not None:
                self._cache.close()
                self._cache = None

    def _use(self, action: Callable[[diskcache.Cache], T], otherwise: T) -> T:
        """Run `action` on the open store, and once more on a new one if the first was set aside."""
        for _ in range(2):
            # An empty diskcache.Cache is false: compare with None.
            cache = self._cache
            try:
                if cache is None:
                    cache = self._open()
                return otherwise if cache is None else action(cache)
            except (sqlite3.DatabaseError, OSError) as error:
                self._recover(error)
        return otherwise

    def _open(self) -> diskcache.Cache | None:
        with self._guard:
            if self._cache is None and self.usable:
                import diskcache

                with self._alone():
                    self._begin()
                    self._cache = diskcache.Cache(
                        str(self.folder),
                        disk=_text_disk(),
                        size_limit=SIZE_LIMIT,
                        disk_min_file_size=_NEVER_A_FILE,
                    )
                    self._inode = self._current_inode()
            return self._cache

    def _alone(self) -> filelock.BaseFileLock:
        """A lock against others who open or set aside the same folder."""
        make_private(self.folder.parent)
        return filelock.FileLock(self.folder.with_name(f".{self.folder.name}.lock"))

    def _begin(self) -> None:
        """Make the folder, unless it is there; one of another version goes out of the way first."""
        mark = self.folder / "format"
        if self.folder.is_file():
            self._set_aside("is a file")
        elif (self.folder / _DATABASE).exists():
            found = mark.read_text(encoding="utf-8", errors="replace") if mark.exists() else ""
            if found == FORMAT:
                return
            named = repr(found[:40].strip()) if found else "unnamed"
            self._set_aside(f"is of another version ({named}, not {FORMAT.strip()!r})")
        make_private(self.folder)
        mark.write_text(FORMAT, encoding="utf-8")

    def _recover(self, error: Exception) -> None:
        """Set a damaged store aside; where the folder itself is the trouble, go on without one.

        SQLite reports damage as a plain DatabaseError and a full disk or a missing permission as
        an OperationalError: renaming would not mend those, and would lose a good store.
        """
        with self._guard:
            self.close()
            damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
                error, sqlite3.OperationalError
            )
            try:
                if damaged:
                    with self._alone():
                        # Else another process has set it aside already, and this is the new one.
                        if self._inode in (0, self._current_inode()):
                            self._set_aside(f"is damaged ({error})")
                    return
            except OSError as second:
                error = second
            if self.usable:
                _say(f"answer cache {self.folder} cannot be used ({error}); going on without it")
            self.usable = False

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
        _say(f"answer cache {self.folder} {why}; set aside as {aside}")


def _text_disk() -> Any:
    """A diskcache.Disk that never unpickles, whatever someone else has put into the database."""
    import diskcache

    class TextDisk(diskcache.Disk):
        def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> str:
            if filename is not None or not isinstance(value, str):
                raise ValueError("the entry is not text")
            return value

    return TextDisk


def _say(line: str) -> None:
    print(line, file=sys.stderr)
