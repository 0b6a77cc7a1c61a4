"""A corpus: passages read from a JSONL file, and the hash that names their content.

Place in the path: in front of the BM25 index. On failure: `DataNotFound` for the file,
`DataMalformed` for a line (named by file and number), `DataEmpty` for a file without a passage.
Nothing is skipped silently but blank lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from rsearch_cli.errors import DataEmpty, DataNotFound
from rsearch_cli.questions.rows import Row, shorten, stream_rows
from rsearch_cli.storage.json_text import dump_json
from rsearch_cli.types import Passage

_REQUIRED = ("id", "title", "text")
_FIELDS = (*_REQUIRED, "source")
_SHAPE = 'expected {"id": "...", "title": "...", "text": "...", "source": "..." (may be left out)}'


def read_corpus(path: Path) -> list[Passage]:
    """Read all passages of a JSONL file at once; see `stream_corpus`."""
    return list(stream_corpus(path))


def stream_corpus(path: Path) -> Iterator[Passage]:
    """Yield the passages of a JSONL file one by one, in the order of the file.

    Args:
        path: UTF-8 file with one object a line, of the fields `id`, `title`, `text` and, where a
            passage belongs to one source only, `source`.

    Raises:
        DataNotFound: There is no such file, or it cannot be read.
        DataMalformed: A line is not a passage, or two lines have the same id.
        DataEmpty: The file holds no passage.
    """
    origin, remedy = f"corpus {path}", "set search.sources.<name>.corpus to a JSONL file"
    places: dict[str, str] = {}
    for row in stream_rows(path, origin=origin, expected=_SHAPE, remedy=remedy):
        passage = _parse_passage(row)
        if passage.id in places:
            raise row.malformed(
                f"this id is already that of {places[passage.id]}; ids must be unique"
            )
        places[passage.id] = row.place
        yield passage
    if not places:
        raise DataEmpty(f"{origin} holds no passage; write one a line, {_SHAPE}")


def hash_corpus(passages: Iterable[Passage]) -> str:
    """Name the content of a corpus: sha256, in hex, over every field in order, scores left out."""
    digest = hashlib.sha256()
    for p in passages:
        # JSON marks where a field ends, and its escapes can hold any text, lone surrogates too.
        digest.update(
            dump_json([p.id, p.title, p.text, p.source], ensure_ascii=True).encode("ascii")
        )
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Name the content of a corpus file: sha256, in hex, over its bytes.

    Raises:
        DataNotFound: There is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataNotFound(
            f"corpus {path} does not exist; set search.sources.<name>.corpus to a JSONL file"
        ) from None
    except OSError as error:
        raise DataNotFound(f"corpus {path} cannot be read: {error.strerror}") from None


def _parse_passage(row: Row) -> Passage:
    """Turn a row into a passage, or say what is wrong with it."""
    fields = row.fields
    if unknown := [key for key in fields if key not in _FIELDS]:
        known = ", ".join(_FIELDS)
        raise row.malformed(f"unknown field {shorten(unknown[0])}; a passage has {known}")
    if missing := [key for key in _REQUIRED if key not in fields]:
        raise row.malformed(f"{missing[0]!r} is missing; {_SHAPE}")
    for key, value in fields.items():
        if not isinstance(value, str):
            raise row.malformed(f"{key!r} is {shorten(value)}, not a string")
    if not fields["id"]:
        raise row.malformed("'id' is empty")
    if not fields["title"].strip() and not fields["text"].strip():
        raise row.malformed("'title' and 'text' are both empty")
    return Passage(**fields)
