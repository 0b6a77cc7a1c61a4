"""Rows of a question file: JSONL or one JSON list of objects, read strictly.

Place in the path: below the question sets that live in a file. On failure: `DataNotFound`,
`DataMalformed` naming file, line and what is wrong, or `DataEmpty`; a row is never skipped.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound

_SHAPES = "expected JSONL (one object a line) or one JSON list of objects"


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file, and where it stands.

    Attributes:
        origin: The file or data set, for messages.
        place: `line 3` in JSONL and `item 3` in a JSON list, both counted from 1.
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
    """Read all objects of a JSON or JSONL file, in order; blank lines and a BOM are fine.

    Which of the two it is shows in the first character, not in the file's name.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: It is not UTF-8, not JSON, or a row is no object.
        DataEmpty: There is no row in it.
    """
    content = _decode(path, _read_bytes(path))
    if content.lstrip().startswith("["):
        items = enumerate(_parse(path, content, 1), start=1)
        placed = [(f"item {number}", value) for number, value in items]
    else:
        # Not splitlines(): U+2028 and its like may stand inside a JSON string.
        lines = enumerate(content.split("\n"), start=1)
        placed = [(f"line {n}", _parse(path, line, n)) for n, line in lines if line.strip()]
    if not placed:
        raise DataEmpty(f"{path} holds no rows; {_SHAPES}")
    for place, value in placed:
        if not isinstance(value, dict):
            raise DataMalformed(f"{path}, {place}: {shorten(value)} is no object; {_SHAPES}")
    return [Row(str(path), place, fields) for place, fields in placed]


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
    shown = json.dumps(value, ensure_ascii=False)
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


def _decode(path: Path, content: bytes) -> str:
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataMalformed(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); "
            "save the file as UTF-8"
        ) from None


def _parse(path: Path, text: str, first_line: int) -> Any:
    """Parse one JSON text that begins at `first_line` of the file."""
    try:
        value = json.loads(text)
        if "\\u" in text:
            # An escaped half of a surrogate pair parses, but no tokenizer and no file takes it.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataMalformed(
            f"{path}, line {line}: not JSON ({error.msg} at column {error.colno}); {_SHAPES}"
        ) from None
    except UnicodeEncodeError:
        raise DataMalformed(
            f"{path}, line {first_line} or below: an escape such as \\ud83d stands alone, "
            "without the other half of its character"
        ) from None
    except ValueError:
        # What the standard library refuses beyond bad syntax: integers of over 4300 digits.
        raise DataMalformed(f"{path}, line {first_line} or below: a number is too long") from None
    except RecursionError:
        raise DataMalformed(f"{path}, line {first_line} or below: nested too deeply") from None
    return value
