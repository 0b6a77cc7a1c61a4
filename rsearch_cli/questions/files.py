"""Files of questions and of passages, written whole or not at all.

Place in the path: the end of `rsearch data` and of `rsearch index --from-questions`; `rows` and
`search.corpus` read what is written here. On failure: `DataError` where the file cannot be written;
one that stood there before is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.questions.parquet import write_parquet
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.types import Passage

Rows = Sequence[Mapping[str, Any]]


def write_rows(rows: Rows, path: Path) -> None:
    """Write rows as JSON, JSONL or parquet, by the end of the file's name.

    An old file is replaced.

    Raises:
        DataError: The name says none of them, or the file cannot be written.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: the name must end in {', '.join(WRITERS)}, which says the format")
    _write_whole(path, lambda state: write(rows, state))


def write_corpus(passages: Iterable[Passage], path: Path) -> int:
    """Write passages as a JSONL corpus, one at a time; an old file is replaced.

    Returns:
        How many there were.

    Raises:
        DataError: The file cannot be written.
    """
    count = 0

    def write(state: Path) -> None:
        nonlocal count
        with state.open("w", encoding="utf-8", newline="\n") as file:
            for p in passages:
                row = {"id": p.id, "title": p.title, "text": p.text}
                file.write(_line(row | ({"source": p.source} if p.source else {})) + "\n")
                count += 1

    _write_whole(path, write)
    return count


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a draft beside the file, which takes its place once it is whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as state:
            write(state)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_json(rows: Rows, path: Path) -> None:
    lines = ",\n".join(map(_line, rows))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")


def _write_jsonl(rows: Rows, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_line(row) + "\n" for row in rows)


def _line(row: Mapping[str, Any]) -> str:
    return dump_json(row)


WRITERS: Mapping[str, Callable[[Rows, Path], None]] = {
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": write_parquet,
}
"""End of a file's name to what writes such a file."""
