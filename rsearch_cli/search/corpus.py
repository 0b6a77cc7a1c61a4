"""Corpora: passages from a file, and the hash of their content."""

from __future__ import annotations

import hashlib
import re
from array import array
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
NAME_FILE = "name a file of passages, in a recipe as search.sources.<name>.corpus"
"""What to do about a corpus that does not exist."""

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
        path: File of rows with `id`, `title`, `text` and, for a passage of only one source,
            `source`. Common other names of these fields are accepted, and `contents` whose first
            line is the title in quotes. See `questions.formats` for the file formats.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: A row is not a passage, or two rows have the same id.
        DataEmpty: The file has no passages.
    """
    origin, remedy = f"corpus {path}", NAME_FILE
    # Hashes, because a dictionary of ids would need more memory than the index.
    hashes = array("q")
    for row in stream_rows(path, origin=origin, expected=_SHAPE, remedy=remedy):
        passage = _parse_passage(row)
        hashes.append(hash(passage.id))
        if len(hashes) & (len(hashes) - 1) == 0:  # whenever their number has doubled
            _require_unique(path, origin, hashes)
        yield passage
    if not hashes:
        raise DataEmpty(f"{origin} holds no passage; write one a line, {_SHAPE}")
    _require_unique(path, origin, hashes)


def _require_unique(path: Path, origin: str, hashes: array[int]) -> None:
    """Check that the ids with these hashes, the first ones of a file, differ.

    Raises:
        DataMalformed: Two are equal; the message names both rows.
    """
    import numpy as np

    found, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    suspected = set(found[counts > 1].tolist())
    if not suspected:
        return
    places: dict[str, str] = {}
    for row in stream_rows(path, origin=origin, expected=_SHAPE, remedy=""):
        name = _read_id(row)
        if hash(name) not in suspected:
            continue
        if name in places:
            raise row.malformed(f"this id is already that of {places[name]}; ids must be unique")
        places[name] = row.place


def hash_corpus(passages: Iterable[Passage]) -> str:
    """Return the SHA-256 in hex of all fields of all passages in order, without scores."""
    digest = hashlib.sha256()
    for p in passages:
        # JSON delimits fields, and its escapes can represent any text, lone surrogates too.
        digest.update(
            dump_json([p.id, p.title, p.text, p.source], ensure_ascii=True).encode("ascii")
        )
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 in hex of a corpus file.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataNotFound(
            f"corpus {path} is a pipe or a device, which cannot be read twice; write it to a file"
        )
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataNotFound(f"corpus {path} does not exist; {NAME_FILE}") from None
    except IsADirectoryError:
        raise DataNotFound(f"corpus {path} is a folder; name one of the files in it") from None
    except OSError as error:
        raise DataNotFound(f"corpus {path} cannot be read: {error.strerror}") from None


def split_quoted_title(contents: str) -> tuple[str, str]:
    """Split a text whose first line is its title in quotes; the title is "" if it is not."""
    quoted = _QUOTED_TITLE.match(contents)
    return (quoted[1], contents[quoted.end() :]) if quoted else ("", contents)


def _parse_passage(row: Row) -> Passage:
    """Convert a row into a passage."""
    source = row.fields.get(_SOURCE)
    if source is None and (near := _misspelt_source(tuple(row.fields))):
        raise row.malformed(f"unknown field {shorten(near)}; did you mean {_SOURCE!r}?")
    name, title = row.find(TITLE)
    title = _text(row, name, read_metadata(row).get("title") if name is None else title)
    text = _text(row, *row.find(TEXT))
    if not text and not row.names(TEXT):
        title = ""  # a title alone is not a passage where another field may hold its text
    quoted, rest = split_quoted_title(text)
    if quoted and title in ("", quoted):
        title, text = quoted, rest
    if not title.strip() and not text.strip():
        fields = ", ".join(map(str, row.fields))
        remedy = _SHAPE
        if row.find(("question", "query", "messages"))[0]:
            remedy = "questions go to --data-path; `rsearch index --from-questions` makes a corpus"
        raise row.malformed(f"there is no text, its fields are {fields or 'none'}; {remedy}")
    return Passage(_read_id(row), title, text, _text(row, _SOURCE, source))


def _read_id(row: Row) -> str:
    """Return the id of a passage, or its place (`line-3`) if it has none."""
    name, value = row.find(ID)
    if name is None:
        return row.place.replace(" ", "-")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise row.malformed(f"{name!r} is {shorten(value)}; an id is a text or a whole number")
    return value


def _text(row: Row, name: str | None, value: object) -> str:
    """Return a title or text, which may be a list of paragraphs; "" if it is missing."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(part.strip() for part in value)
    if value is not None and not isinstance(value, str):
        raise row.malformed(f"{name!r} is {shorten(value)}, not a string")
    return value or ""


@lru_cache(maxsize=64)
def _misspelt_source(fields: tuple[str, ...]) -> str | None:
    """Return a field whose name is nearly `source`: its passages would belong to every source.

    Other unknown fields are ignored.
    """
    near = get_close_matches(_SOURCE, fields, 1, 0.8)
    return near[0] if near and _SOURCE not in fields else None
