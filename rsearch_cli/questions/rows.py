"""Rows of a file: JSONL, one JSON list of objects, or parquet, read strictly.

Place in the path: below the question sets that live in a file, and below corpora. On failure:
`DataNotFound`, `DataMalformed` naming file, line and what is wrong, or `DataEmpty`; a row is never
skipped.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound
from rsearch_cli.questions.parquet import PARQUET_MAGIC, read_parquet
from rsearch_cli.storage.json_text import dump_json

_SHAPES = "expected JSONL (one object a line) or one JSON list of objects"


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, and where it stands.

    Attributes:
        origin: The file or data set, for messages.
        place: `line 3` in JSONL, `item 3` in a JSON list, `row 3` in parquet; counted from 1.
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

    def extras(self, known: Iterable[str]) -> dict[str, Any]:
        """All fields but the `known` ones, as they came."""
        return {key: value for key, value in self.fields.items() if key not in known}


def read_rows(path: Path) -> list[Row]:
    """Read all objects of a JSON, JSONL or parquet file, in order; blank lines and a BOM are fine.

    Which of them it is shows in the first characters, not in the file's name.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: It is not UTF-8, not JSON, or a row is no object.
        DataEmpty: There is no row in it.
    """
    raw = _read_bytes(path)
    origin = str(path)
    if raw.startswith(PARQUET_MAGIC):
        placed = [(f"row {n}", fields) for n, fields in enumerate(read_parquet(origin, raw), 1)]
    else:
        placed = _parse_text(origin, _decode(origin, raw.removeprefix(codecs.BOM_UTF8)))
    if not placed:
        raise DataEmpty(f"{path} holds no rows; {_SHAPES}")
    return [_as_row(origin, place, value, _SHAPES) for place, value in placed]


def stream_rows(path: Path, *, origin: str, expected: str, remedy: str) -> Iterator[Row]:
    """Yield the objects of a JSONL file line by line, so that a file of any size fits.

    Args:
        path: UTF-8, with or without a BOM; blank lines are skipped.
        origin: What messages call the file.
        expected: The form of a row, for messages.
        remedy: What to do where there is no such file.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: A line is not UTF-8, not JSON or no object.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                text = _decode(origin, raw.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n"), number)
                if text.strip():
                    value = _parse(origin, text, number, expected)
                    yield _as_row(origin, f"line {number}", value, expected)
    except FileNotFoundError:
        raise DataNotFound(f"{origin} does not exist; {remedy}") from None
    except OSError as error:
        raise DataNotFound(f"{origin} cannot be read: {error.strerror}") from None


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


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataNotFound(
            f"{path} does not exist; set questions.path to a JSON or JSONL file of questions"
        ) from None
    except OSError as error:
        raise DataNotFound(f"{path} cannot be read: {error.strerror}") from None


def _parse_text(origin: str, content: str) -> list[tuple[str, Any]]:
    """The values of a JSON list or of JSONL, each with its place."""
    if content.lstrip().startswith("["):
        items = enumerate(_parse_strictly(origin, content, 1), start=1)
        return [(f"item {number}", value) for number, value in items]
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    lines = enumerate(content.split("\n"), start=1)
    return [(f"line {n}", _parse_strictly(origin, line, n)) for n, line in lines if line.strip()]


def _as_row(origin: str, place: str, value: Any, expected: str) -> Row:
    if not isinstance(value, dict):
        raise DataMalformed(f"{origin}, {place}: {shorten(value)} is no object; {expected}")
    return Row(origin, place, value)


def _decode(origin: str, content: bytes, first_line: int = 1) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        raise DataMalformed(
            f"{origin}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); "
            "save the file as UTF-8"
        ) from None


def _parse_strictly(origin: str, text: str, first_line: int) -> Any:
    """Parse as `_parse`, and refuse what parses but no tokenizer and no file takes."""
    value = _parse(origin, text, first_line, _SHAPES)
    try:
        if "\\u" in text:
            dump_json(value).encode("utf-8")
    except UnicodeEncodeError:
        raise DataMalformed(
            f"{origin}, line {first_line} or below: an escape such as \\ud83d stands alone, "
            "without the other half of its character"
        ) from None
    return value


def _parse(origin: str, text: str, first_line: int, expected: str) -> Any:
    """Parse one JSON text that begins at `first_line` of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataMalformed(
            f"{origin}, line {line}: not JSON ({error.msg} at column {error.colno}); {expected}"
        ) from None
    except ValueError:
        # What the standard library refuses beyond bad syntax: integers of over 4300 digits.
        raise DataMalformed(f"{origin}, line {first_line} or below: a number is too long") from None
    except RecursionError:
        raise DataMalformed(f"{origin}, line {first_line} or below: nested too deeply") from None
