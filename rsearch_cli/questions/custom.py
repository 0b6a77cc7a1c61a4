"""Your own questions: `{"question", "answer"}` rows in a JSON, JSONL or parquet file.

Place in the path: a question set without a corpus. On failure: `DataMalformed` names the row.

    {"question": "Who wrote Dune?", "answer": "Frank Herbert", "split": "train"}
    {"id": "q2", "question": "Is Pluto a planet?", "answer": ["no", "dwarf"], "split": "test"}

`id`, `type`, `level`, `supporting_titles` and `split` may be left out; all other fields are kept as
metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.questions.records import Record, keep_row
from rsearch_cli.questions.rows import Row, read_rows, require_unique, shorten
from rsearch_cli.questions.sets import FileQuestionSet, QuestionSet, deal_splits, keep_levels
from rsearch_cli.recipe.schema import Questions
from rsearch_cli.types import Question

_FIELDS = {"id", "question", "answer", "type", "level", "supporting_titles", "split"}


def open_custom(recipe: Questions, seed: int) -> QuestionSet:
    """Open the question file at `recipe.path`.

    Where rows name their `split`, those are the set's splits; otherwise `held_out_share` of the
    file becomes `validation` (and `test`).

    Raises:
        RecipeValueError: `recipe.path` is not set.
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: A row cannot be used, or an id comes twice.
        DataEmpty: There are no rows, or none of a level in `recipe.difficulty`.
    """
    if recipe.path is None:
        raise RecipeValueError(
            "questions.path is required for questions.source 'custom'; set it to a JSON or JSONL "
            'file of {"question", "answer"} rows'
        )
    path = Path(recipe.path).expanduser()
    rows = read_rows(path)
    questions = [parse_question(row) for row in rows]
    require_unique(zip((q.id for q in questions), rows, strict=True))
    kept = keep_levels(questions, recipe.difficulty, recipe.path)
    split_of = _read_splits(questions, rows)
    if split_of:
        splits = {name: [q for q in kept if split_of[q.id] == name] for name in split_of.values()}
    else:
        splits = deal_splits(kept, recipe.held_out_share, seed)
    return FileQuestionSet(
        recipe.path,
        f"questions from {recipe.path}",
        splits,
        reread=lambda: _read_records(path),
    )


def parse_question(row: Row) -> Question:
    """Read one row; without an `id` it is named after its place, such as `line-3`.

    Raises:
        DataMalformed: `question` or `answer` is missing, or a field has the wrong type.
    """
    return Question(
        id=_read_id(row),
        text=row.text("question"),
        answers=_read_answers(row),
        type=row.text("type", default=""),
        level=row.text("level", default=""),
        supporting_titles=_read_titles(row),
        metadata=row.extras(_FIELDS),
    )


def _read_records(path: Path) -> Iterator[Record]:
    return (keep_row(parse_question(row), row.fields) for row in read_rows(path))


def _read_id(row: Row) -> str:
    value = row.fields.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return row.text("id", default=row.place.replace(" ", "-"))


def _read_answers(row: Row) -> tuple[str, ...]:
    value = row.fields.get("answer")
    if not isinstance(value, list):
        return (row.text("answer"),)
    if not value or not all(isinstance(a, str) and a.strip() for a in value):
        raise row.malformed(
            f"'answer' must be a string or a list of strings, none of them empty, "
            f"not {shorten(value)}"
        )
    return tuple(a.strip() for a in value)


def _read_titles(row: Row) -> tuple[str, ...]:
    value = row.fields.get("supporting_titles") or []
    if not isinstance(value, list) or not all(isinstance(title, str) for title in value):
        raise row.malformed(f"'supporting_titles' must be a list of strings, not {shorten(value)}")
    return tuple(value)


def _read_splits(questions: list[Question], rows: list[Row]) -> dict[str, str]:
    """Question id to the split its row names; empty where no row names one."""
    named = [row for row in rows if row.fields.get("split") is not None]
    if not named:
        return {}
    for row in rows:
        if row.fields.get("split") is None:
            raise row.malformed(f"has no 'split', but {named[0].place} has; give it to all or none")
    return {q.id: row.text("split") for q, row in zip(questions, rows, strict=True)}
