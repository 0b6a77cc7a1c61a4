"""Records: questions together with the rows that they are kept as in a file.

Place in the path: beside it; `rsearch data` reads a set as records, checks them and writes their
rows. On failure: none of its own; what the set raises passes through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rsearch_cli.types import Question


@dataclass(frozen=True, slots=True)
class Record:
    """A question and its row.

    Attributes:
        question: As a rollout gets it.
        fields: As a file keeps it: a JSON object with all that the set says, paragraphs included.
    """

    question: Question
    fields: Mapping[str, Any]


def keep_row(question: Question, fields: Mapping[str, Any]) -> Record:
    """Keep a row as it came; one that was named after its place gets that name as its id."""
    named = fields.get("id") is not None or fields.get("_id") is not None
    own_id = {"id": question.id}
    return Record(question, fields if named else own_id | dict(fields) | own_id)


def write_rows_of(questions: Iterable[Question]) -> list[Record]:
    """Give questions the rows that `questions.source: custom` reads back as the same questions."""
    return [Record(question, _write(question)) for question in questions]


def _write(question: Question) -> dict[str, Any]:
    answers = list(question.answers)
    row = {
        "id": question.id,
        "question": question.text,
        "answer": answers[0] if len(answers) == 1 else answers,
        "type": question.type,
        "level": question.level,
        "supporting_titles": list(question.supporting_titles),
    }
    # What a set leaves open says nothing in the file either.
    told = {key: value for key, value in row.items() if value not in ("", [])}
    return {**told, **{k: v for k, v in question.metadata.items() if k not in row}}
