"""Read rows from JSONL, JSON, CSV, TSV and parquet files, plain or compressed, one at a time.

The format is detected from the first bytes, except for tables, which need their file name suffix.
`datasets` and pyarrow read JSON and CSV too, but their errors do not name the line of a bad row and
they unify the types of a column, so only parquet is left to pyarrow.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from rsearch_cli.errors import DataMalformed, DataNotFound
from rsearch_cli.questions.parquet import PARQUET_MAGIC, stream_parquet
from rsearch_cli.runs.json_text import parse_json

Placed = tuple[str, Any]
"""A value and its location: `line 3`, `item 3` of a list, `row 3` of a parquet file."""

SHAPES = "JSONL, a JSON list of objects, parquet, .csv or .tsv; all also as .gz"

_COMPRESSED: Mapping[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ENDINGS = (".gz", ".bz2", ".xz")
_PACKED = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it, or compress it by gzip",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"\xff\xff\xff\xff": "an Arrow stream, as datasets saves it; write it with to_parquet",
    b"SQLite format 3": "a database; export its table as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel 97 to 2003; save the sheet as CSV UTF-8",
    b"\x80\x04\x95": "a pickle; write its rows as JSONL",
    b"\xff\xfe": "UTF-16 text, such as Excel's «Unicode Text»; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"version https://git-lfs": "a git-lfs pointer, not the file; run `git lfs pull` in its folder",
    b"<": "a web page or XML; download the file itself",
}
LONGEST_LINE = 32 * 2**20
"""Most bytes of a row; without a limit, a small compressed file could fill the memory."""

_LONGEST_DOCUMENT = 2**30  # of a file that is one JSON list or object, which is read as a whole
_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t"}
"""Possible delimiters by file suffix; the header line decides."""

# Excel's optional first line that names the delimiter, and spellings of an empty cell.
_SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
_NO_VALUE = frozenset("nan NaN <NA> NULL #N/A #NAME? #REF! #VALUE! #NULL! #NUM! #DIV/0!".split())

SPLITS = ("train", "validation", "valid", "val", "dev", "development", "eval", "test")
# Keys of a JSON object that contain its rows, and keys that make it a row itself.
_CONTAINERS = ("data", "rows", "questions", "examples", "items", "instances", "records", "hits")
_OF_A_ROW = ("question", "query", "prompt", "text", "contents")
# Keys that search engines and dataset viewers wrap each row in.
_WRAPPERS = ("_source", "row")


def stream_values(path: Path, *, origin: str, expected: str, remedy: str) -> Iterator[Placed]:
    """Yield the values of a file in order; only a single JSON list or object is loaded as a whole.

    Args:
        path: The file.
        origin: Name of the file in messages.
        expected: Form of a row, for messages.
        remedy: What to do if the file does not exist, for messages.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: It is damaged, not UTF-8, or has an unknown format.
    """
    try:
        with path.open("rb") as raw, _decompress(raw, origin) as file:
            head = file.peek(64)
            if head.startswith(PARQUET_MAGIC):
                yield from stream_parquet(file, origin)
                return
            delimiters = _DELIMITERS.get(_ending(path))
            is_json = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")
            lines = _decode_lines(file, origin, _LONGEST_DOCUMENT if is_json else LONGEST_LINE)
            if delimiters and not is_json:
                yield from _stream_table(lines, origin, delimiters)
            else:
                for place, value in _stream_json(lines, origin, expected):
                    yield from _unwrap(place, value)
    except FileNotFoundError:
        raise DataNotFound(f"{origin} does not exist; {remedy}") from None
    except IsADirectoryError:
        raise DataNotFound(f"{origin} is a folder; name one of the files in it") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataMalformed(
            f"{origin} is damaged or truncated ({error}); download it again"
        ) from None
    except OSError as error:
        raise DataNotFound(f"{origin} cannot be read: {error.strerror or error}") from None


def _ending(path: Path) -> str:
    """Return the suffix of a file name, ignoring that of its compression."""
    name = path.name.lower()
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _decompress(raw: io.BufferedReader, origin: str) -> io.BufferedReader:
    """Return the decompressed content of a file."""
    head = raw.peek(64)
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise DataMalformed(f"{origin} is {what}")
    for magic, opener in _COMPRESSED.items():
        if head.startswith(magic):
            return io.BufferedReader(opener(raw))
    return raw


def _decode_lines(file: io.BufferedIOBase, origin: str, longest_first: int) -> Iterator[str]:
    """Yield the lines of a text without its BOM, including line ends.

    Decoded line by line to name the bad one in errors, and split at line feeds only, because JSON
    strings may contain U+2028 and similar characters.
    """
    for number in itertools.count(1):
        longest = longest_first if number == 1 else LONGEST_LINE
        raw = file.readline(longest + 1)
        if not raw:
            return
        if len(raw) > longest:
            raise _too_long(origin, f"line {number}", longest)
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataMalformed(
                f"{origin}, line {number}: not UTF-8 (byte 0x{raw[error.start]:02x}); "
                "save the file as UTF-8"
            ) from None


def _stream_json(lines: Iterator[str], origin: str, expected: str) -> Iterator[Placed]:
    """Yield the values of JSONL, of a JSON list, or of a JSON object that contains rows."""
    numbered = ((n, line.rstrip("\r\n")) for n, line in enumerate(lines, 1) if line.strip())
    number, first = next(numbered, (0, ""))
    if not number:
        return
    if first.lstrip().startswith("["):
        document = _parse(origin, f"{first}\n{_join(lines, origin)}", number, expected)
        yield from _items(document if isinstance(document, list) else [document])
        return
    try:
        value = _parse(origin, first, number, expected)
    except DataMalformed:
        # Either JSONL with a bad first line, or one object spanning several lines.
        if not first.rstrip().endswith(("{", "[", ",", ":")):
            raise
        rest = _join(lines, origin)
        if not rest.strip():
            raise
        document = _parse(origin, f"{first}\n{rest}", number, expected)
        yield from _open_container(document) or [("line 1", document)]
        return
    second = next(numbered, None)
    if second is None and (rows := _open_container(value)):
        yield from rows
        return
    if len(first) > LONGEST_LINE:
        raise _too_long(origin, f"line {number}", LONGEST_LINE)
    yield f"line {number}", value
    if second is None:
        return
    for number, line in chain([second], numbered):
        yield f"line {number}", _parse(origin, line, number, expected)


def _join(lines: Iterable[str], origin: str) -> str:
    """Join the lines of one JSON value."""
    joined, size = [], 0
    for line in lines:
        joined.append(line)
        size += len(line)
        if size > _LONGEST_DOCUMENT:
            raise _too_long(origin, "its only JSON value", _LONGEST_DOCUMENT)
    return "".join(joined)


def _too_long(origin: str, place: str, longest: int) -> DataMalformed:
    return DataMalformed(
        f"{origin}, {place}: longer than {longest >> 20} MiB; write one row a line (JSONL), and "
        "split long texts"
    )


def _open_container(document: Any) -> list[Placed] | None:
    """Return the rows inside the object that is the whole file; None if it is a row itself."""
    if not isinstance(document, dict) or any(
        isinstance(document.get(name), str) for name in _OF_A_ROW
    ):
        return None
    if isinstance(document.get("hits"), dict):
        document = document["hits"]
    rows = {k: v for k, v in document.items() if isinstance(v, list) and v and _all(v, dict)}
    splits = [key for key in rows if key.lower() in SPLITS]
    if splits and len(splits) == len(rows):
        return [
            (f"{split}, item {number}", {"split": split} | value)
            for split in splits
            for number, value in enumerate(rows[split], start=1)
        ]
    held = [key for key in rows if key.lower() in _CONTAINERS]
    if len(held) == 1:
        return list(_items(rows[held[0]]))
    return _open_columns(document)


def _open_columns(document: dict[str, Any]) -> list[Placed] | None:
    """Return the rows of a column-wise table (pandas, datasets) or of an object keyed by id.

    None if it is neither.
    """
    if document and all(
        isinstance(row, dict) and any(isinstance(row.get(name), str) for name in _OF_A_ROW)
        for row in document.values()
    ):
        return [(f"entry {key}", {"id": key} | row) for key, row in document.items()]
    columns = [
        list(column.values()) if isinstance(column, dict) else column
        for column in document.values()
    ]
    if len(columns) < 2 or not _all(columns, list):
        return None
    scalars = not any(isinstance(cell, dict) for column in columns for cell in column)
    if not scalars or len({len(column) for column in columns}) != 1:
        return None
    rows = zip(*columns, strict=True)
    return list(_items(dict(zip(document, row, strict=True)) for row in rows))


def _items(values: Iterable[Any]) -> Iterator[Placed]:
    return ((f"item {number}", value) for number, value in enumerate(values, start=1))


def _unwrap(place: str, value: Any) -> Iterator[Placed]:
    """Yield a row without its wrapper, or the questions of a SQuAD article."""
    if not isinstance(value, dict):
        yield place, value
        return
    for name in _WRAPPERS:
        if isinstance(value.get(name), dict):
            value = {k: v for k, v in value.items() if k == "_id"} | value[name]
    paragraphs = value.get("paragraphs")
    if not (isinstance(paragraphs, list) and paragraphs and _all(paragraphs, dict)):
        yield place, value
    elif all(isinstance(paragraph.get("qas"), list) for paragraph in paragraphs):
        about = {k: v for k, v in value.items() if k in ("title", "split")}
        for number, paragraph in enumerate(paragraphs, start=1):
            for asked, question in enumerate(paragraph["qas"], start=1):
                where = f"{place}, paragraph {number}, question {asked}"
                row = {**about, "context": paragraph.get("context")}
                yield where, row | question if isinstance(question, dict) else question
    else:
        yield place, value


def _stream_table(lines: Iterator[str], origin: str, delimiters: str) -> Iterator[Placed]:
    """Yield the rows of CSV or TSV as objects of strings, without empty cells.

    Spreadsheets write a first line `sep=;`, empty rows and unnamed empty columns; all are skipped.
    """
    csv.field_size_limit(LONGEST_LINE)
    numbered = ((n, line) for n, line in enumerate(lines, 1) if line.strip())
    number, header = next(numbered, (1, ""))
    if named := _SEPARATOR.fullmatch(header.strip()):
        delimiters = named[1]
        number, header = next(numbered, (number, ""))
    before = number - 1
    delimiter = max(delimiters, key=header.count)
    reader = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            place, number = f"line {number}", before + reader.line_num + 1
            if not names:
                names = [cell.strip() for cell in cells]
                if any(name and names.count(name) > 1 for name in names):
                    raise DataMalformed(f"{origin}, {place}: two columns have the same name")
            elif cells and len(cells) != len(names):
                raise DataMalformed(
                    f"{origin}, {place}: {len(cells)} cells where the first line has "
                    f"{len(names)}; quote cells that contain {delimiter!r} or a line break"
                )
            elif row := _read_cells(names, cells, f"{origin}, {place}"):
                yield place, row
    except csv.Error as error:
        raise DataMalformed(
            f"{origin}, line {number}: not a table ({error}); double the quotes inside quoted cells"
        ) from None


def _read_cells(names: list[str], cells: list[str], where: str) -> dict[str, str]:
    """Return the filled cells of a row; an unnamed first column is a row number."""
    filled = {n: cell for n, cell in enumerate(cells) if cell.strip() not in ("", *_NO_VALUE)}
    if stray := [n for n in filled if n and not names[n]]:
        raise DataMalformed(
            f"{where}: cell {stray[0] + 1} contains {filled[stray[0]][:40]!r}, but its column has "
            "no name in the first line; name it, or quote cells that contain a delimiter"
        )
    return {names[n]: cell for n, cell in filled.items()}


def _parse(origin: str, text: str, first_line: int, expected: str) -> Any:
    """Parse a JSON text that starts at `first_line` of the file."""
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataMalformed(
            f"{origin}, line {line}: not JSON ({error.msg} at column {error.colno}); {expected}"
        ) from None
    except (ValueError, RecursionError) as error:
        # Valid JSON beyond Python's limits on nesting and on the length of integers.
        reason = str(error).partition(";")[0]
        raise DataMalformed(f"{origin}, line {first_line}: not readable ({reason})") from None


def has_lone_surrogate(value: Any) -> bool:
    """Whether a string in it contains half a surrogate pair, which cannot be encoded."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _all(values: Iterable[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)
