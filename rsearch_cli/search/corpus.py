"""A corpus: passages read from a JSONL file, and the hash that names their content.

Place in the path: in front of the BM25 index. On failure: `DataNotFound` for the file,
`DataMalformed` for a line (named by file and number), `DataEmpty` for a file without a passage.
Nothing is skipped silently but blank lines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound
from rsearch_cli.questions.rows import shorten
from rsearch_cli.types import Passage

_REQUIRED = ("id", "title", "text")
_FIELDS = (*_REQUIRED, "source")
_SHAPE = '{"id": "...", "title": "...", "text": "...", "source": "..." (may be left out)}'


def read_corpus(path: Path) -> list[Passage]:
    """Read all passages of a JSONL file, in the order of the file.

    Args:
        path: UTF-8 file with one object a line, of the fields `id`, `title`, `text` and, where a
            passage belongs to one source only, `source`.

    Raises:
        DataNotFound: There is no such file, or it cannot be read.
        DataMalformed: A line is not a passage, or two lines have the same id.
        DataEmpty: The file holds no passage.
    """
    passages = []
    first_line: dict[str, int] = {}
    for number, raw in enumerate(_read_lines(path), start=1):
        if not raw.strip():
            continue
        try:
            passage = _parse_passage(raw)
        except ValueError as error:
            raise DataMalformed(f"corpus {path}, line {number}: {error}") from None
        if passage.id in first_line:
            raise DataMalformed(
                f"corpus {path}, line {number}: id {shorten(passage.id)} is already that of line "
                f"{first_line[passage.id]}; ids must be unique"
            )
        first_line[passage.id] = number
        passages.append(passage)
    if not passages:
        raise DataEmpty(f"corpus {path} holds no passage; write one a line: {_SHAPE}")
    return passages


def hash_corpus(passages: Iterable[Passage]) -> str:
    """Name the content of a corpus: sha256, in hex, over every field in order, scores left out."""
    digest = hashlib.sha256()
    for p in passages:
        # JSON marks where a field ends, and its escapes can hold any text, lone surrogates too.
        digest.update(json.dumps([p.id, p.title, p.text, p.source]).encode("ascii"))
    return digest.hexdigest()


def _read_lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataNotFound(
            f"corpus {path} does not exist; set search.sources.<name>.corpus to a JSONL file"
        ) from None
    except OSError as error:
        raise DataNotFound(f"corpus {path} cannot be read: {error.strerror}") from None
    return content.removeprefix(b"\xef\xbb\xbf").split(b"\n")


def _parse_passage(raw: bytes) -> Passage:
    """Turn one line into a passage, or raise ValueError saying what is wrong with it."""
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not a passage: nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"{shorten(row)} is not an object; expected {_SHAPE}")
    if unknown := [key for key in row if key not in _FIELDS]:
        raise ValueError(f"unknown field {shorten(unknown[0])}; a passage has {', '.join(_FIELDS)}")
    if missing := [key for key in _REQUIRED if key not in row]:
        raise ValueError(f"{missing[0]!r} is missing; expected {_SHAPE}")
    for key, value in row.items():
        if not isinstance(value, str):
            raise ValueError(f"{key!r} is {shorten(value)}, not a string")
    if not row["id"]:
        raise ValueError("'id' is empty")
    if not row["title"].strip() and not row["text"].strip():
        raise ValueError("'title' and 'text' are both empty")
    return Passage(**row)
