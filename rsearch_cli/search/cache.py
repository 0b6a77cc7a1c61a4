"""The disk cache of search answers, and the folder that all caches live in.

Place in the path: around every source; the executor asks here first and stores what a source
answered. On failure: a damaged cache is set aside under another name and a new one begun; a folder
that cannot be used at all leaves the run without a cache. Either is said once on stderr and never
stops a run. Errors are never stored.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import platformdirs

from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import diskcache

CACHE_VERSION = 1
"""Raise it when the meaning of a key or the shape of an entry changes."""

SIZE_LIMIT = 2 * 2**30
"""Bytes on disk after which the oldest entries go."""


def cache_root() -> Path:
    """Folder of everything rsearch keeps between runs; RSEARCH_CACHE_DIR overrides it."""
    if chosen := os.environ.get("RSEARCH_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("rsearch", appauthor=False))


def request_key(fingerprint: str, request: SearchRequest) -> str:
    """Name a request to a source: JSON of everything that changes the answer.

    Queries that differ only in white space or in how Unicode spells a letter have the same key.
    """
    return json.dumps(
        {
            "version": CACHE_VERSION,
            "fingerprint": fingerprint,
            "query": " ".join(unicodedata.normalize("NFC", request.query).split()),
            "expansion": request.expansion,
            "top_k": request.top_k,
            "own_words_weight": request.own_words_weight,
        }
    )


def encode_passages(passages: Sequence[Passage]) -> str:
    """Write passages as JSON, in ASCII, so that any text survives, lone surrogates too."""
    return json.dumps([asdict(passage) for passage in passages])


def decode_passages(text: str) -> tuple[Passage, ...]:
    """Read what `encode_passages` wrote.

    Raises:
        ValueError: The text is not JSON.
        TypeError: It is JSON, but not a list of passages.
    """
    return tuple(Passage(**row) for row in json.loads(text))


class SearchCache:
    """Answers of search sources, kept on disk between runs; opened on first use.

    Attributes:
        folder: Where the answers are kept.
        hits: Lookups that found an answer.
        misses: Lookups that found none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Name the cache's folder without touching it; None takes `search` in `cache_root()`."""
        self.folder = cache_root() / "search" if folder is None else folder
        self.hits = 0
        self.misses = 0
        self._store: diskcache.Cache | None = None
        self._usable = True

    def get(self, key: str) -> tuple[Passage, ...] | None:
        """Look an answer up by its `request_key`; None if there is none."""
        passages = self._read(key)
        if passages is None:
            self.misses += 1
        else:
            self.hits += 1
        return passages

    def put(self, key: str, passages: Sequence[Passage]) -> None:
        """Keep an answer. An error is no answer and must not come here."""
        try:
            if (store := self._open()) is not None:
                store.set(key, encode_passages(passages), retry=True)
        except (sqlite3.DatabaseError, OSError) as error:
            self._recover(error)

    def close(self) -> None:
        """Close the files; the next use opens them again."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, key: str) -> tuple[Passage, ...] | None:
        try:
            store = self._open()
            text = None if store is None else store.get(key, retry=True)
            return None if text is None else decode_passages(text)
        except (ValueError, TypeError):
            return None  # an entry that cannot be read is searched for again and overwritten
        except (sqlite3.DatabaseError, OSError) as error:
            self._recover(error)
            return None

    def _open(self) -> diskcache.Cache | None:
        # An empty diskcache.Cache is false: callers compare with None.
        if self._store is None and self._usable:
            import diskcache

            self._store = diskcache.Cache(str(self.folder), size_limit=SIZE_LIMIT)
        return self._store

    def _recover(self, error: Exception) -> None:
        """Set a damaged cache aside; where the folder itself is the trouble, go on without one.

        SQLite reports damage as a plain DatabaseError and a full disk or a missing permission as
        an OperationalError: renaming would not mend those, and would lose a good cache.
        """
        self.close()
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        try:
            if damaged or self.folder.is_file():
                aside = _free_name(self.folder)
                self.folder.rename(aside)
                _say(f"search cache {self.folder} is damaged ({error}); set aside as {aside}")
                return
        except OSError as second:
            error = second
        self._usable = False
        _say(f"search cache {self.folder} cannot be used ({error}); going on without it")


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    return aside


def _say(line: str) -> None:
    print(line, file=sys.stderr)
