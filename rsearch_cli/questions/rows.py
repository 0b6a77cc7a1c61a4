"""Rows of a file with their locations; a bad row is an error and never skipped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataEmpty, DataMalformed
from rsearch_cli.questions.formats import SHAPES, has_lone_surrogate, stream_values
from rsearch_cli.runs.json_text import dump_json

_EXPECTED = f"expected {SHAPES}"
_REMEDY = "name a file of questions, in a recipe as questions.path"
_NOT_COUNTED = re.compile(r"[\s_-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file.

    Attributes:
        origin: Name of the file or dataset in messages.
        place: Location: `line 3` in JSONL and tables, `item 3` in a JSON list, `row 3` in parquet.
        fields: The object itself.
    """

    origin: str
    place: str
    fields: dict[str, Any]

    def malformed(self, problem: str) -> DataMalformed:
        """Return the error for this row: origin, location and id, followed by `problem`."""
        name = self.fields.get("id", self.fields.get("_id"))
        named = f" (id {shorten(name)})" if isinstance(name, str | int) else ""
        return DataMalformed(f"{self.origin}, {self.place}{named}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return the string at `key`, stripped.

        Args:
            key: Name of the field.
            default: Value of a missing or null field; None makes the field required.

        Raises:
            DataMalformed: The field is missing though required, not a string, or blank.
        """
        value = self.fields.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.malformed(f"'{key}' is missing")
        if not isinstance(value, str):
            raise self.malformed(f"'{key}' must be a string, not {shorten(value)}")
        if not value.strip():
            raise self.malformed(f"'{key}' is empty")
        return value.strip()

    def find(self, names: Sequence[str]) -> tuple[str | None, Any]:
        """Return the first of the names that has a value, as spelt in the row, and the value.

        Ignores case, blanks, hyphens and underscores; (None, None) if there is none.
        """
        for name in names:
            if self.fields.get(name) is not None:
                return name, self.fields[name]
        folded = {_fold(key): key for key, value in self.fields.items() if value is not None}
        for name in names:
            if (key := folded.get(_fold(name))) is not None:
                return key, self.fields[key]
        return None, None

    def names(self, names: Sequence[str]) -> bool:
        """Whether the row has one of the names, whatever its value."""
        return not {_fold(name) for name in names}.isdisjoint(map(_fold, self.fields))

    def extras(self, known: Iterable[str]) -> dict[str, Any]:
        """Return all fields except the `known` ones, unchanged."""
        return {key: value for key, value in self.fields.items() if key not in known}


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a file of questions, in any format of `formats`.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: Its format is unknown, or a row is not an object or not valid text.
        DataEmpty: It has no rows.
    """
    rows = list(stream_rows(path, origin=str(path), expected=_EXPECTED, remedy=_REMEDY))
    for row in rows:
        if has_lone_surrogate(row.fields):
            raise row.malformed(
                "an escape such as \\ud83d is only half of a surrogate pair; fix its encoding"
            )
    if not rows:
        raise DataEmpty(f"{path} has no rows; {_EXPECTED}")
    return rows


def stream_rows(path: Path, *, origin: str, expected: str, remedy: str) -> Iterator[Row]:
    """Yield the objects of a file one by one, so that its size does not matter.

    Args:
        path: A file in any format of `formats`.
        origin: Name of the file in messages.
        expected: Form of a row, for messages.
        remedy: What to do if the file does not exist, for messages.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: It is damaged, or a row is not an object.
    """
    for place, value in stream_values(path, origin=origin, expected=expected, remedy=remedy):
        if not isinstance(value, dict):
            raise DataMalformed(f"{origin}, {place}: {shorten(value)} is not an object; {expected}")
        yield Row(origin, place, value)


def require_unique(named_rows: Iterable[tuple[str, Row]]) -> None:
    """Check that no two rows have the same id.

    Raises:
        DataMalformed: Two do; the message names both locations.
    """
    places: dict[str, str] = {}
    for name, row in named_rows:
        if name in places:
            raise DataMalformed(
                f"{row.origin}, {row.place}: id {shorten(name)} is already used by {places[name]}; "
                "every question needs its own id"
            )
        places[name] = row.place


def shorten(value: object) -> str:
    """Return a JSON value in at most 60 characters."""
    shown = dump_json(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _fold(name: object) -> str:
    return _NOT_COUNTED.sub("", str(name)).lower()
