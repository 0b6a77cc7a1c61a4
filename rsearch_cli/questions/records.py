"""Records: questions together with their rows, and the files that rows are written to.

A file is written to a temporary name first and replaces an old one only when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.questions.parquet import write_parquet
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.types import Passage, Question

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Record:
    """A question and its row.

    Attributes:
        question: The question as the rollout sees it.
        fields: The row as stored in a file: a JSON object with everything the set provides, context
            paragraphs included.
    """

    question: Question
    fields: Mapping[str, Any]


def keep_row(question: Question, fields: Mapping[str, Any]) -> Record:
    """Keep a row as it is; if it has no id of its own, the question's id is added."""
    named = fields.get("id") is not None or fields.get("_id") is not None
    own_id = {"id": question.id}
    return Record(question, fields if named else own_id | dict(fields) | own_id)


def write_rows_of(questions: Iterable[Question]) -> list[Record]:
    """Return records whose rows `questions.source: custom` reads back as the same questions."""
    return [Record(question, _make_row(question)) for question in questions]


def write_rows(rows: Rows, path: Path) -> None:
    """Write rows as JSON, JSONL or parquet, depending on the file name.

    Raises:
        DataError: The file name has another suffix, or the file cannot be written.
    """
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise DataError(f"{path}: the file name must end in {', '.join(WRITERS)}")
    _write_whole(path, lambda draft: write(rows, draft))


def write_corpus(passages: Iterable[Passage], path: Path) -> int:
    """Write passages as a JSONL corpus, one at a time.

    Returns:
        Number of passages.

    Raises:
        DataError: The file cannot be written.
    """
    count = 0

    def write(draft: Path) -> None:
        nonlocal count
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            for p in passages:
                row = {"id": p.id, "title": p.title, "text": p.text}
                file.write(dump_json(row | ({"source": p.source} if p.source else {})) + "\n")
                count += 1

    _write_whole(path, write)
    return count


def write_text(text: str, path: Path) -> None:
    """Write a text file.

    Raises:
        DataError: It cannot be written.
    """
    _write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8", newline="\n"))


def _make_row(question: Question) -> dict[str, Any]:
    answers = list(question.answers)
    row = {
        "id": question.id,
        "question": question.text,
        "answer": answers[0] if len(answers) == 1 else answers,
        "type": question.type,
        "level": question.level,
        "supporting_titles": list(question.supporting_titles),
    }
    filled = {key: value for key, value in row.items() if value not in ("", [])}
    return {**filled, **{k: v for k, v in question.metadata.items() if k not in row}}


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, creating its folder, and replace an old one when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            write(draft)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_json(rows: Rows, path: Path) -> None:
    lines = ",\n".join(map(dump_json, rows))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")


def _write_jsonl(rows: Rows, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(dump_json(row) + "\n" for row in rows)


WRITERS: Mapping[str, Callable[[Rows, Path], None]] = {
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": write_parquet,
}
"""Writer by file suffix."""
