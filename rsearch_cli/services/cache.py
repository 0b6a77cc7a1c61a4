"""The disk cache: answers that were paid for, kept between runs and shared by all processes.

Place in the path: the client looks here before it asks anyone, and stores what a service answered.
Entries are JSON, never pickle. On failure: an entry that cannot be read is a miss, which is said
once, and is overwritten; what can go wrong below, see `store`. What failed is never stored: only
answers come here.
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
"""Raise it when the shape of an entry or of a key changes."""

ANSWERS = "answers"
"""Name of the answers' folder in the cache folder."""

Check = Callable[[Mapping[str, Any], JsonValue], None]
"""Takes the parts of a key and the answer, and raises `ValueError` if they do not go together."""

# Whatever stands where an entry should stand ends in one of these.
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)
# The end of the year 9999, after which there is no date to show.
_LAST_SECOND = 253402300799.0
# How far the clock of the machine that exported may be ahead.
_CLOCK_SKEW_SECONDS = 86400.0

_KEY_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

Mode = Literal["read-write", "refresh", "offline"]


def cache_root() -> Path:
    """Folder of everything rsearch keeps between runs; RSEARCH_CACHE_DIR overrides it."""
    if chosen := os.environ.get("RSEARCH_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("rsearch", appauthor=False))


def normalise(text: str) -> str:
    """Give texts that differ only in white space or in Unicode's spelling of a letter one form."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def make_key(service: str, **parts: Any) -> str:
    """Name a request: canonical JSON of the service and of everything that changes the answer.

    Args:
        service: By what name the answer is counted, listed and cleared.
        parts: JSON values, texts already normalised; their order does not matter.
    """
    return _write_key({"service": service, "version": ENTRY_VERSION, **parts})


def _write_key(parts: Mapping[str, Any]) -> str:
    return _KEY_ENCODER.encode(parts)


def read_key(key: str) -> dict[str, Any]:
    """The parts that `make_key` was given, or nothing for a key of another make."""
    try:
        parts = json.loads(key)
    except (ValueError, RecursionError):
        return {}
    return parts if isinstance(parts, dict) else {}


def accept_any(parts: Mapping[str, Any], value: JsonValue) -> None:
    """A `Check` that takes every answer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored answer.

    Attributes:
        value: The answer.
        usd: What it cost.
        stored: When it was stored, in seconds since 1970.
        ttl: Seconds for which it may be used; None is for ever.
        version: Of the entry's shape.
    """

    value: JsonValue
    usd: float
    stored: float
    ttl: float | None
    version: int = ENTRY_VERSION

    def is_fresh(self, now: float) -> bool:
        """Whether its time to live is not over."""
        return self.ttl is None or now < self.stored + self.ttl

    def as_row(self) -> dict[str, JsonValue]:
        """The entry as a JSON object, which `Entry(**row)` reads."""
        return {
            "version": self.version,
            "stored": self.stored,
            "ttl": self.ttl,
            "usd": self.usd,
            "value": self.value,
        }


@dataclass(slots=True)
class ServiceStats:
    """What the cache holds of one service.

    Attributes:
        entries: Answers.
        expired: Those of them whose time to live is over.
        usd: What they cost together.
        oldest: When the first of them was stored, in seconds since 1970.
        newest: When the last of them was stored.
    """

    entries: int = 0
    expired: int = 0
    usd: float = 0.0
    oldest: float = float("inf")
    newest: float = 0.0


class AnswerCache(AbstractContextManager["AnswerCache"]):
    """Answers by key, on disk; any number of threads and processes may use one folder.

    Attributes:
        folder: Where the answers are kept.
        mode: `read-write`; `refresh` finds only what was stored since this object was made;
            `offline` also finds what has outlived its time, because nothing better can be had.
    """

    def __init__(
        self,
        folder: Path | None = None,
        mode: Mode = "read-write",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Name the folder without touching it; None takes `answers` in `cache_root()`."""
        self.folder = cache_root() / ANSWERS if folder is None else folder
        self.mode = mode
        self._store = TextStore(self.folder)
        self._clock = clock
        self._made = clock()
        self._said_unreadable = False

    @property
    def usable(self) -> bool:
        """False once the folder has shown that it cannot be used."""
        return self._store.usable

    def find(self, key: str) -> Entry | None:
        """Look an answer up with what is known of it; None if there is none that may be used."""
        try:
            text = self._store.get(key)
            entry = None if text is None else _read_entry(json.loads(text))
        except _UNREADABLE as problem:
            self._say_unreadable(key, problem)
            return None
        if entry is None or self.mode == "offline":
            return entry
        if self.mode == "refresh" and entry.stored < self._made:
            return None
        return entry if entry.is_fresh(self._clock()) else None

    def get(self, key: str) -> JsonValue:
        """Look an answer up; None if there is none that may be used."""
        entry = self.find(key)
        return None if entry is None else entry.value

    def put(
        self, key: str, value: JsonValue, ttl_seconds: float | None = None, usd: float = 0.0
    ) -> Entry:
        """Keep an answer; a failure is no answer and must not come here.

        Returns:
            The entry exactly as it will be found, also where nothing can be kept.

        Raises:
            TypeError: The value is not JSON.
            ValueError: It holds a number that JSON has not (NaN, infinity).
        """
        text = _write_entry(Entry(value, usd, self._clock(), ttl_seconds))
        self._keep(key, text)
        return _read_entry(json.loads(text))

    def drop(self, key: str, problem: Exception) -> None:
        """Remove an answer that turned out not to be valid."""
        self._say_unreadable(key, problem)
        self._store.drop(key)

    def stats(self) -> dict[str, ServiceStats]:
        """What is stored, by service."""
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
        """Bytes on disk."""
        return self._store.size_bytes()

    def clear(self, service: str | None = None) -> int:
        """Remove the answers of a service, or all; how many those were."""
        return self._store.remove(service)

    def export_rows(
        self, service: str | None = None, check: Check = accept_any
    ) -> Iterator[dict[str, JsonValue]]:
        """The answers of a service, or all, as JSON objects, in the order of their keys.

        Args:
            service: Its name, or None for all.
            check: Answers that it refuses are left out, because no import would take them.
        """
        for key, entry, owner in self._entries():
            if service not in (None, owner):
                continue
            try:
                check(read_key(key), entry.value)
            except ValueError as problem:
                self._say_unreadable(key, problem)
            else:
                yield {"key": key, **entry.as_row()}

    def import_rows(self, rows: Iterable[object], check: Check = accept_any) -> int:
        """Keep answers that `export_rows` gave, in place of those that are here: all or none.

        Times and prices stay as they were, so an export of the import is the same text.

        Args:
            rows: What was exported.
            check: Refuses answers that are not what their keys ask for.

        Returns:
            How many were kept.

        Raises:
            DataMalformed: A row is not what is exported, or all together are more than is kept;
                nothing has been imported then.
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

    def _keep(self, key: str, text: str) -> bool:
        return self._store.put(key, text, str(read_key(key).get("service", "")))

    def _entries(self) -> Iterator[tuple[str, Entry, str]]:
        """Everything that can be read: key, entry, service."""
        for key, text, service in self._store.rows():
            try:
                entry = _read_entry(json.loads(text))
            except _UNREADABLE as problem:
                self._say_unreadable(key, problem)
            else:
                yield key, entry, service

    def _say_unreadable(self, key: str, problem: Exception) -> None:
        if not self._said_unreadable:
            self._said_unreadable = True
            logger.warning(
                f"answer cache {self.folder}: an entry cannot be read ({problem}), it and others "
                f"like it are left out: {key[:200]}"
            )


def _write_entry(entry: Entry) -> str:
    """Write an entry in its one form: ASCII, so that any text survives, lone surrogates too."""
    return json.dumps(entry.as_row(), separators=(",", ":"), allow_nan=False)


def _read_entry(row: Any) -> Entry:
    """Read what `Entry.as_row` wrote, strictly.

    Raises:
        ValueError: It is of another version, or a number is not one.
        TypeError: It is of another shape.
    """
    entry = Entry(**row)
    if entry.version != ENTRY_VERSION or isinstance(entry.version, bool):
        raise ValueError(f"version {entry.version!r:.40}, not {ENTRY_VERSION}")
    if read_charge(entry.usd) is None:
        raise ValueError(f"{entry.usd!r:.40} is no price in USD")
    for seconds in (entry.stored, 0.0 if entry.ttl is None else entry.ttl):
        if not is_finite(seconds) or not 0.0 <= seconds <= _LAST_SECOND:
            raise ValueError(f"{seconds!r:.40} is no time in seconds")
    return entry


def _read_row(number: int, row: object, check: Check, latest: float) -> tuple[str, Entry]:
    """Read one row of an import.

    Raises:
        DataMalformed: It is not what is exported.
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
        raise DataMalformed(f"row {number} is no answer that was exported ({problem})") from problem
