"""Disk cache of answers from services, kept between runs and shared by all processes.

Entries are JSON, never pickle. An entry that cannot be read counts as a miss and is overwritten;
the first one is reported. Failures are never stored.
"""

from __future__ import annotations

import json
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import JsonValue

from rsearch_cli.errors import DataMalformed
from rsearch_cli.services.store import SIZE_LIMIT, TextStore
from rsearch_cli.services.validation import is_finite, read_charge

logger = logging.getLogger(__name__)

ENTRY_VERSION = 1
"""Increase it when the format of an entry or of a key changes."""

ANSWERS = "answers"
"""Folder of the answers inside the cache folder."""

Check = Callable[[Mapping[str, Any], JsonValue], None]
"""Called with the parts of a key and the answer; raises `ValueError` if they do not match."""

# What reading an arbitrary value as an entry may raise.
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)
# The end of the year 9999, after which there is no date to show.
_LAST_SECOND = 253402300799.0
# How far the clock of the exporting machine may be ahead.
_CLOCK_SKEW_SECONDS = 86400.0

_KEY_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

Mode = Literal["read-write", "refresh", "offline"]


def cache_root() -> Path:
    """Return the folder of all that is kept between runs; RSEARCH_CACHE_DIR overrides it."""
    if chosen := os.environ.get("RSEARCH_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("rsearch", appauthor=False))


def normalise(text: str) -> str:
    """Return one form for texts that differ only in white space or Unicode composition."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def make_key(service: str, **parts: Any) -> str:
    """Return the key of a request: canonical JSON of all that changes the answer.

    Args:
        service: Name under which the answer is counted, listed and cleared.
        parts: JSON values, texts already normalised; their order does not matter.
    """
    return _write_key({"service": service, "version": ENTRY_VERSION, **parts})


def _write_key(parts: Mapping[str, Any]) -> str:
    return _KEY_ENCODER.encode(parts)


def read_key(key: str) -> dict[str, Any]:
    """Return the parts of a key from `make_key`; empty for any other text."""
    try:
        parts = json.loads(key)
    except (ValueError, RecursionError):
        return {}
    return parts if isinstance(parts, dict) else {}


def accept_any(parts: Mapping[str, Any], value: JsonValue) -> None:
    """A `Check` that accepts every answer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored answer.

    Attributes:
        value: The answer.
        usd: What it cost.
        stored: When it was stored, in seconds since 1970.
        ttl: Seconds for which it is valid; None is forever.
        version: Format of the entry.
    """

    value: JsonValue
    usd: float
    stored: float
    ttl: float | None
    version: int = ENTRY_VERSION

    def is_fresh(self, now: float) -> bool:
        """Return whether it is still valid."""
        return self.ttl is None or now < self.stored + self.ttl

    def as_row(self) -> dict[str, JsonValue]:
        """Return the entry as a JSON object; `Entry(**row)` reads it."""
        return {
            "version": self.version,
            "stored": self.stored,
            "ttl": self.ttl,
            "usd": self.usd,
            "value": self.value,
        }


@dataclass(slots=True)
class ServiceStats:
    """The stored answers of one service.

    Attributes:
        entries: Number of answers.
        expired: Number of those that are no longer valid.
        usd: Their total cost.
        oldest: When the first one was stored, in seconds since 1970.
        newest: When the last one was stored.
    """

    entries: int = 0
    expired: int = 0
    usd: float = 0.0
    oldest: float = float("inf")
    newest: float = 0.0


class AnswerCache(AbstractContextManager["AnswerCache"]):
    """Answers by key, on disk; any number of threads and processes may share a folder.

    Args:
        folder: Not touched yet; None uses `answers` in `cache_root()`.
        mode: `read-write`; `refresh` ignores what was stored before this object was created;
            `offline` also returns expired answers, because nothing newer can be fetched.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        folder: Path | None = None,
        mode: Mode = "read-write",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = cache_root() / ANSWERS if folder is None else folder
        self.mode = mode
        self._store = TextStore(self.folder)
        self._clock = clock
        self._made = clock()
        self._reported_unreadable = False

    @property
    def usable(self) -> bool:
        """False once the folder has turned out to be unusable."""
        return self._store.usable

    def find(self, key: str) -> Entry | None:
        """Return the stored entry of a key; None if there is no valid one."""
        try:
            text = self._store.get(key)
            entry = None if text is None else _read_entry(json.loads(text))
        except _UNREADABLE as problem:
            self._report_unreadable(key, problem)
            return None
        if entry is None or self.mode == "offline":
            return entry
        if self.mode == "refresh" and entry.stored < self._made:
            return None
        return entry if entry.is_fresh(self._clock()) else None

    def get(self, key: str) -> JsonValue:
        """Return the stored answer of a key; None if there is no valid one."""
        entry = self.find(key)
        return None if entry is None else entry.value

    def put(
        self, key: str, value: JsonValue, ttl_seconds: float | None = None, usd: float = 0.0
    ) -> Entry:
        """Store an answer.

        Returns:
            The entry exactly as `find` will return it, even if it could not be stored.

        Raises:
            TypeError: The value is not JSON.
            ValueError: The value contains NaN or infinity.
        """
        text = _write_entry(Entry(value, usd, self._clock(), ttl_seconds))
        self._store.put(key, text, str(read_key(key).get("service", "")))
        return _read_entry(json.loads(text))

    def drop(self, key: str, problem: Exception) -> None:
        """Remove an answer that turned out to be invalid."""
        self._report_unreadable(key, problem)
        self._store.drop(key)

    def stats(self) -> dict[str, ServiceStats]:
        """Return what is stored, by service."""
        services: dict[str, ServiceStats] = {}
        now = self._clock()
        for _, entry, service in self._entries():
            stats = services.setdefault(service, ServiceStats())
            stats.entries += 1
            stats.expired += not entry.is_fresh(now)
            stats.usd += entry.usd
            stats.oldest = min(stats.oldest, entry.stored)
            stats.newest = max(stats.newest, entry.stored)
        return dict(sorted(services.items()))

    def size_bytes(self) -> int:
        """Return the size on disk in bytes."""
        return self._store.size_bytes()

    def clear(self, service: str | None = None) -> int:
        """Remove the answers of a service, or all; return their number."""
        return self._store.remove(service)

    def export_rows(
        self, service: str | None = None, check: Check = accept_any
    ) -> Iterator[dict[str, JsonValue]]:
        """Yield the answers of a service, or all, as JSON objects ordered by key.

        Args:
            service: Its name, or None for all.
            check: Answers that it refuses are left out, because an import would refuse them too.
        """
        for key, entry, owner in self._entries():
            if service not in (None, owner):
                continue
            try:
                check(read_key(key), entry.value)
            except ValueError as problem:
                self._report_unreadable(key, problem)
            else:
                yield {"key": key, **entry.as_row()}

    def import_rows(self, rows: Iterable[object], check: Check = accept_any) -> int:
        """Store rows of `export_rows`, replacing entries with the same keys: all rows or none.

        Times and costs stay as they were, so exporting the import returns the same text.

        Args:
            rows: Exported rows.
            check: Refuses answers that do not match their keys.

        Returns:
            The number of stored answers.

        Raises:
            DataMalformed: A row is not an exported one, or all rows exceed the size limit;
                nothing has been imported.
        """
        latest = self._clock() + _CLOCK_SKEW_SECONDS
        texts: dict[str, str] = {}
        size = 0
        for number, row in enumerate(rows, 1):
            key, entry = _read_row(number, row, check, latest)
            if key in texts:
                raise DataMalformed(f"row {number} has the key of an earlier row")
            texts[key] = _write_entry(entry)
            size += len(key) + len(texts[key])
            if size > SIZE_LIMIT:
                raise DataMalformed(f"the answers have more than {SIZE_LIMIT} bytes together")
        rows_to_keep = [(key, text, read_key(key)["service"]) for key, text in texts.items()]
        return len(texts) if self._store.put_all(rows_to_keep) else 0

    def close(self) -> None:
        """Close the files; the next use opens them again."""
        self._store.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _entries(self) -> Iterator[tuple[str, Entry, str]]:
        """Yield key, entry and service of every readable entry."""
        for key, text, service in self._store.rows():
            try:
                entry = _read_entry(json.loads(text))
            except _UNREADABLE as problem:
                self._report_unreadable(key, problem)
            else:
                yield key, entry, service

    def _report_unreadable(self, key: str, problem: Exception) -> None:
        if not self._reported_unreadable:
            self._reported_unreadable = True
            logger.warning(
                f"answer cache {self.folder}: an entry cannot be read ({problem}); it and others "
                f"like it are skipped: {key[:200]}"
            )


def _write_entry(entry: Entry) -> str:
    """Return an entry as ASCII JSON, which can hold any text, lone surrogates too."""
    return json.dumps(entry.as_row(), separators=(",", ":"), allow_nan=False)


def _read_entry(row: Any) -> Entry:
    """Parse a row of `Entry.as_row`, strictly.

    Raises:
        ValueError: The version is another one, or a number is invalid.
        TypeError: The fields are other ones.
    """
    entry = Entry(**row)
    if entry.version != ENTRY_VERSION or isinstance(entry.version, bool):
        raise ValueError(f"version {entry.version!r:.40}, not {ENTRY_VERSION}")
    if read_charge(entry.usd) is None:
        raise ValueError(f"{entry.usd!r:.40} is not a price in USD")
    for seconds in (entry.stored, 0.0 if entry.ttl is None else entry.ttl):
        if not is_finite(seconds) or not 0.0 <= seconds <= _LAST_SECOND:
            raise ValueError(f"{seconds!r:.40} is not a time in seconds")
    return entry


def _read_row(number: int, row: object, check: Check, latest: float) -> tuple[str, Entry]:
    """Parse one row of an import.

    Raises:
        DataMalformed: It is not an exported row.
    """
    try:
        if not isinstance(row, dict) or not isinstance(row.get("key"), str):
            raise ValueError("no object with a key")
        key, parts = row["key"], read_key(row["key"])
        if parts.get("version") != ENTRY_VERSION or _write_key(parts) != key:
            raise ValueError("its key is not written as keys are")
        service = parts.get("service")
        if not isinstance(service, str) or not service or not service.isprintable():
            raise ValueError("its key names no service")
        entry = _read_entry({name: value for name, value in row.items() if name != "key"})
        if entry.stored > latest:
            raise ValueError(f"it was stored in the future, at {entry.stored!r:.40}")
        _write_entry(entry)
        check(parts, entry.value)
        return key, entry
    except _UNREADABLE as problem:
        raise DataMalformed(f"row {number} is not an exported answer ({problem})") from problem
