"""Your own questions, from a file in any form that `formats` and `fields` read.

    {"question": "Who wrote Dune?", "answer": "Frank Herbert", "split": "train"}
    {"id": "q2", "question": "Is Pluto a planet?", "answer": ["no", "dwarf"], "split": "test"}

`id`, `type`, `level`, `supporting_titles`, `context` and `split` are optional; all other fields are
kept as metadata.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.questions.contexts import collect_passages, find_paragraphs
from rsearch_cli.questions.fields import parse_question, parse_questions
from rsearch_cli.questions.records import Record, keep_row
from rsearch_cli.questions.rows import Row, read_rows
from rsearch_cli.questions.sets import FileQuestionSet, QuestionSet, assign_splits, keep_levels
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.types import Question

logger = logging.getLogger(__name__)


def open_custom(config: QuestionsConfig, seed: int) -> QuestionSet:
    """Open the question file at `questions.path`; see `open_file`.

    Raises:
        RecipeValueError: `questions.path` is not set.
        DataError: The file cannot be used.
    """
    if config.path is None:
        raise RecipeValueError(
            "questions.source 'custom' needs questions.path; set it to a file of questions, such "
            'as JSONL with {"question", "answer"} rows'
        )
    return open_file(config, config.path, seed)


def open_file(
    config: QuestionsConfig,
    path: str,
    seed: int,
    name: str = "questions",
    check: Callable[[Row], None] = lambda row: None,
) -> QuestionSet:
    """Open a file of questions, with the paragraphs in its rows as the corpus.

    Rows that name their `split` define the splits; otherwise `held_out_share` of the questions
    becomes `validation` (and `test`).

    Args:
        config: Its `difficulty`, `held_out_share` and `held_out_by` are used.
        path: The file.
        seed: Decides which questions are held out.
        name: Name of the questions in the description.
        check: Raises `DataMalformed` for a row that does not belong to the set.

    Raises:
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: A row cannot be used, or two have the same id.
        DataEmpty: There are no rows, or none of a level in `config.difficulty`.
    """
    file = Path(path).expanduser()
    rows = read_rows(file)
    for row in rows:
        check(row)
    questions = parse_questions(rows)
    _warn_of_unread_fields(questions, path)
    kept = keep_levels(questions, config.difficulty, path)
    split_of = _read_splits(questions, rows)
    if split_of:
        splits = {name: [q for q in kept if split_of[q.id] == name] for name in split_of.values()}
    else:
        splits = assign_splits(kept, config, seed)
    contexts = [found for row in rows if (found := find_paragraphs(row)) is not None]
    levels = f", level {' or '.join(config.difficulty)}" if config.difficulty else ""
    share = f" ({len(kept)} of {len(questions)})" if len(kept) < len(questions) else ""
    return FileQuestionSet(
        name=path,
        description=f"{name} from {path}{levels}{share}",
        splits=splits,
        passages=list(collect_passages(contexts)) if contexts else None,
        reread=lambda: _read_records(file),
    )


def _warn_of_unread_fields(questions: Sequence[Question], path: str) -> None:
    """Warn if questions without an answer have fields that are not read: one may be the answer."""
    unanswered = [question for question in questions if not question.answers]
    if names := {name: None for question in unanswered for name in question.metadata}:
        fields = ", ".join(map(repr, names))
        logger.warning(
            f"{path}: {len(unanswered)} of {len(questions)} questions have no answer, only "
            f"supporting titles, and further fields ({fields}); if one of these is the answer, "
            "rename it to 'answer'"
        )


def _read_records(path: Path) -> Iterator[Record]:
    return (keep_row(parse_question(row), row.fields) for row in read_rows(path))


def _read_splits(questions: list[Question], rows: list[Row]) -> dict[str, str]:
    """Return the split named by each row, by question id; empty if no row names one."""
    named = [row for row in rows if row.fields.get("split") is not None]
    if not named:
        return {}
    for row in rows:
        if row.fields.get("split") is None:
            raise row.malformed(
                f"has no 'split', but {named[0].place} has; give all rows one, or none"
            )
    return {q.id: row.text("split") for q, row in zip(questions, rows, strict=True)}
