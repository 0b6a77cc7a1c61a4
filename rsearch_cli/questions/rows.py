"""Rows of a file, each with its place, read strictly: a row is never skipped."""

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
_REMEDY = "set questions.path to a file of questions"
_NOT_COUNTED = re.compile(r"[\s_-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, and where it stands.

    Attributes:
        origin: The file or data set, for messages.
        place: `line 3` in JSONL and in a table, `item 3` in a JSON list, `row 3` in parquet.
        fields: The object itself.
    """

    origin: str
    place: str
    fields: dict[str, Any]

    def malformed(self, problem: str) -> DataMalformed:
        """Build the error for this row: origin, place and id, followed by `problem`."""
        name = self.fields.get("id", self.fields.get("_id"))
        named = f" (id {shorten(name)})" if isinstance(name, str | int) else ""
        return DataMalformed(f"{self.origin}, {self.place}{named}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        """The string at `key`, without surrounding blanks.

        Args:
            key: Name of the field.
            default: What an absent (or null) field counts as; None makes the field required.

        Raises:
            DataMalformed: The field is required and absent, no string, or blank.
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
        """The first of the names that has a value here, as it is spelt here, and the value.

        Case, blanks, hyphens and underscores do not count; (None, None) if there is none.
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
        """Whether one of the names stands here, whatever its value."""
        return not {_fold(name) for name in names}.isdisjoint(map(_fold, self.fields))

    def extras(self, known: Iterable[str]) -> dict[str, Any]:
        """All fields but the `known` ones, as they came."""
        return {key: value for key, value in self.fields.items() if key not in known}


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a file of questions; see `formats` for its forms.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: It is in none of the forms, or a row is no object or holds half a character.
        DataEmpty: There is no row in it.
    """
    rows = list(stream_rows(path, origin=str(path), expected=_EXPECTED, remedy=_REMEDY))
    for row in rows:
        if has_lone_surrogate(row.fields):
            raise row.malformed(
                "an escape such as \\ud83d stands alone, without the other half of its character"
            )
    if not rows:
        raise DataEmpty(f"{path} holds no rows; {_EXPECTED}")
    return rows


def stream_rows(path: Path, *, origin: str, expected: str, remedy: str) -> Iterator[Row]:
    """Yield the objects of a file one by one, so that a file of any size fits.

    Args:
        path: A file in one of the forms of `formats`.
        origin: What messages call the file.
        expected: The form of a row, for messages.
        remedy: What to do where there is no such file.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: It is damaged, or a row is no object.
    """
    for place, value in stream_values(path, origin=origin, expected=expected, remedy=remedy):
        if not isinstance(value, dict):
            raise DataMalformed(f"{origin}, {place}: {shorten(value)} is no object; {expected}")
        yield Row(origin, place, value)


def require_unique(named_rows: Iterable[tuple[str, Row]]) -> None:
    """Check that no two rows have the same id.

    Raises:
        DataMalformed: Two have; both places are named.
    """
    places: dict[str, str] = {}
    for name, row in named_rows:
        if name in places:
            raise DataMalformed(
                f"{row.origin}, {row.place}: id {shorten(name)} is already that of {places[name]}; "
                "every question needs an id of its own"
            )
        places[name] = row.place


def shorten(value: object) -> str:
    """Show a JSON value in at most 60 characters."""
    shown = dump_json(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _fold(name: object) -> str:
    return _NOT_COUNTED.sub("", str(name)).lower()
