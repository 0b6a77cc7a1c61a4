"""A corpus: passages read from a file, and the hash that names their content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from rsearch_cli.errors import DataEmpty, DataNotFound
from rsearch_cli.questions.contexts import TEXT, read_metadata
from rsearch_cli.questions.rows import Row, shorten, stream_rows
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.types import Passage

ID = ("id", "_id", "docid", "doc_id", "pid", "passage_id", "document_id")
TITLE = ("title", "wikipedia_title", "page_title")
_SHAPE = 'expected {"id": "...", "title": "...", "text": "...", "source": "..." (may be left out)}'
_SOURCE = "source"
# Title and text in one field, as in the corpora of Pyserini, Search-R1 and FlashRAG.
_QUOTED_TITLE = re.compile(r'\s*"([^\n]*)"[ \t]*\r?\n')


def read_corpus(path: Path) -> list[Passage]:
    """Read all passages of a file at once; see `stream_corpus`."""
    return list(stream_corpus(path))


def stream_corpus(path: Path) -> Iterator[Passage]:
    """Yield the passages of a file one by one, in the order of the file.

    Args:
        path: A file of rows with `id`, `title`, `text` and, where a passage belongs to one source
            only, `source`. Other names of these fields are read as well, and `contents` whose first
            line is the title in quotes. See `questions.formats` for the forms of the file.

    Raises:
        DataNotFound: There is no such file, or it cannot be read.
        DataMalformed: A row is not a passage, or two rows have the same id.
        DataEmpty: The file holds no passage.
    """
    origin, remedy = f"corpus {path}", "set search.sources.<name>.corpus to a file of passages"
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
            f"corpus {path} does not exist; set search.sources.<name>.corpus to a file of passages"
        ) from None
    except IsADirectoryError:
        raise DataNotFound(f"corpus {path} is a folder; name one of the files in it") from None
    except OSError as error:
        raise DataNotFound(f"corpus {path} cannot be read: {error.strerror}") from None


def _parse_passage(row: Row) -> Passage:
    """Turn a row into a passage, or say what is wrong with it."""
    source = row.fields.get(_SOURCE)
    if source is None and (near := _misspelt_source(tuple(row.fields))):
        raise row.malformed(f"unknown field {shorten(near)}; did you mean {_SOURCE!r}?")
    name, title = row.find(TITLE)
    title = _text(row, name, read_metadata(row).get("title") if name is None else title)
    text = _text(row, *row.find(TEXT))
    if not text and not row.names(TEXT):
        title = ""  # a title alone is no passage where another field may hold its text
    quoted = _QUOTED_TITLE.match(text)
    if quoted and title in ("", quoted[1]):
        title, text = quoted[1], text[quoted.end() :]
    if not title.strip() and not text.strip():
        fields = ", ".join(map(str, row.fields))
        remedy = _SHAPE
        if row.find(("question", "query", "messages"))[0]:
            remedy = "questions go to --data-path; `rsearch index --from-questions` makes a corpus"
        raise row.malformed(f"there is no text, its fields are {fields or 'none'}; {remedy}")
    return Passage(_read_id(row), title, text, _text(row, _SOURCE, source))


def _read_id(row: Row) -> str:
    """The id of a passage; one that has none is named after its place (`line-3`)."""
    name, value = row.find(ID)
    if name is None:
        return row.place.replace(" ", "-")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise row.malformed(f"{name!r} is {shorten(value)}; an id is a text or a whole number")
    return value


def _text(row: Row, name: str | None, value: object) -> str:
    """A title or a text, which may be a list of paragraphs; "" where there is none."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(part.strip() for part in value)
    if value is not None and not isinstance(value, str):
        raise row.malformed(f"{name!r} is {shorten(value)}, not a string")
    return value or ""


@lru_cache(maxsize=64)
def _misspelt_source(fields: tuple[str, ...]) -> str | None:
    """A field that is all but called `source`; its passages would answer for every source.

    Other fields that are not read are let pass.
    """
    near = get_close_matches(_SOURCE, fields, 1, 0.8)
    return near[0] if near and _SOURCE not in fields else None
