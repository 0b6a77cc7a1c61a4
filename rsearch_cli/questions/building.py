"""Build a question file from a question set: clean, check for leaks, sample, write."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataEmpty, DataError, DataNotFound
from rsearch_cli.questions.contexts import collect_passages, require_paragraphs
from rsearch_cli.questions.deduplication import (
    Removal,
    drop_duplicates,
    drop_leaks,
    locate_questions,
)
from rsearch_cli.questions.fields import read_question
from rsearch_cli.questions.records import Record, write_corpus, write_rows
from rsearch_cli.questions.rows import read_rows
from rsearch_cli.questions.sets import (
    FileQuestionSet,
    QuestionSet,
    keep_levels,
    load_records,
    open_question_set,
)
from rsearch_cli.recipe.schema import QuestionsConfig

EXAMPLES = 5
"""Removed questions that a report lists."""

# Splits that must share no question with the key. Some sets hold out the same part for validation
# and test, so these two are not compared with each other.
_OTHER_SIDE = {"train": ("validation", "test"), "validation": ("train",), "test": ("train",)}


@dataclass(frozen=True, slots=True)
class Selection:
    """The questions chosen for a file, and what was removed.

    Attributes:
        records: The chosen questions, in the order of the set.
        split: Their split; None for a whole file.
        available: Number of questions to choose from, after removals.
        duplicates: Questions that occurred earlier in the split.
        leaks: Questions that also occur on the other side, or in the file to check against.
        checked: Splits and files that were checked for leaks.
        unchecked: Splits that exist but could not be read, each with the reason.
    """

    records: list[Record]
    split: str | None
    available: int
    duplicates: list[Removal]
    leaks: list[Removal]
    checked: list[str]
    unchecked: list[str]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """A question file that was written.

    Attributes:
        selection: Its questions.
        source: `questions.source` of the set.
        description: One line on the set.
        requested: Maximum number of questions, or None.
        output: The question file.
        corpus: The corpus file, or None.
        passages: Number of passages in it.
        seed: Seed of the sample.
    """

    selection: Selection
    source: str
    description: str
    requested: int | None
    output: Path
    corpus: Path | None
    passages: int | None
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        chosen = self.selection
        questions = [record.question for record in chosen.records]
        differ = sum(removal.answers_differ for removal in chosen.duplicates)
        corpus = {"file": str(self.corpus), "passages": self.passages} if self.corpus else None
        return {
            "split": chosen.split,
            "asked": self.requested,
            "available": chosen.available,
            "written": len(questions),
            "missing": max(0, (self.requested or 0) - len(questions)),
            "duplicates": _summarise(chosen.duplicates) | {"answers_differ": differ},
            "leaks": _summarise(chosen.leaks)
            | {"checked": chosen.checked, "unchecked": chosen.unchecked},
            "by_type": _count(q.type for q in questions),
            "by_level": _count(q.level for q in questions),
            "source": self.source,
            "description": self.description,
            "output": str(self.output),
            "corpus": corpus,
            "seed": self.seed,
        }


def build_question_file(
    config: QuestionsConfig,
    output: Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 42,
    against: Path | None = None,
    corpus: Path | None = None,
) -> BuildReport:
    """Write the questions of a set to a file, without duplicates and leaks.

    Args:
        config: The set; `difficulty` selects levels.
        output: File to write, as JSON, JSONL or parquet.
        split: None takes all questions of a file, and the training split of any other set.
        limit: Maximum number of questions; if there are more, a random sample is taken.
        seed: Seed of the sample.
        against: File whose questions are left out.
        corpus: File to write the set's passages to.

    Raises:
        DataError: The set, the split or `against` cannot be read, or a file cannot be written.
        DataEmpty: No question is left.
    """
    # Leaks are looked for in questions of all levels.
    opened = open_question_set(config.model_copy(update={"difficulty": None}), seed)
    selection = select_questions(opened, split, config.difficulty, limit, seed, against)
    passages = None if corpus is None else write_corpus(opened.corpus(), corpus)
    write_rows([record.fields for record in selection.records], output)
    return BuildReport(
        selection, config.source, opened.description, limit, output, corpus, passages, seed
    )


def select_questions(
    opened: QuestionSet,
    split: str | None,
    levels: Sequence[str] | None,
    limit: int | None,
    seed: int,
    against: Path | None,
) -> Selection:
    """Choose the questions of a file; see `build_question_file`.

    Args:
        opened: The set, opened with all its levels.
        split: As there.
        levels: Levels to keep; None keeps all.
        limit: As there.
        seed: As there.
        against: As there.

    Raises:
        DataError: The set, the split or `against` cannot be read.
        DataEmpty: No question is left.
    """
    if split is None and not isinstance(opened, FileQuestionSet):
        split = "train"
    records = load_records(opened, split)
    kept_ids = {
        q.id for q in keep_levels([r.question for r in records], levels, opened.description)
    }
    records, duplicates = drop_duplicates([r for r in records if r.question.id in kept_ids])
    elsewhere, checked, unchecked = _read_other_side(opened, split)
    if against is not None:
        named = ((row.place, read_question(row)) for row in read_rows(against))
        elsewhere = locate_questions(named, str(against)) | elsewhere
        checked.append(str(against))
    records, leaks = drop_leaks(records, elsewhere)
    if not records:
        raise DataEmpty(
            f"{opened.description}: all {len(leaks)} questions also occur in "
            f"{' or '.join(checked)}; use another split or another --against"
        )
    available = len(records)
    if limit is not None and limit < available:
        chosen = sorted(random.Random(seed).sample(range(available), limit))
        records = [records[i] for i in chosen]
    return Selection(records, split, available, duplicates, leaks, checked, unchecked)


def extract_corpus(questions: Path, output: Path) -> tuple[int, int]:
    """Write the context paragraphs of a question file as a corpus, each once.

    Returns:
        Number of questions and of passages.

    Raises:
        DataError: The questions cannot be read, have no paragraphs, or `output` cannot be written.
    """
    rows = read_rows(questions)
    return len(rows), write_corpus(collect_passages(require_paragraphs(rows)), output)


def _read_other_side(
    opened: QuestionSet, split: str | None
) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the questions that must not be in this split, and which splits were (un)readable."""
    places: dict[str, str] = {}
    checked, unchecked = [], []
    for other in _OTHER_SIDE.get(split or "", ()):
        try:
            questions = opened.load(other, None)
        except DataNotFound as error:
            unchecked.append(f"{other} ({error})")
        except DataError:
            continue  # a set need not have every split
        else:
            places = locate_questions(((q.id, q.text) for q in questions), other) | places
            checked.append(other)
    return places, checked, unchecked


def _summarise(removals: list[Removal]) -> dict[str, Any]:
    examples = [{"id": r.id, "same_as": r.same_as} for r in removals[:EXAMPLES]]
    return {"removed": len(removals), "examples": examples}


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(name or "not given" for name in names).items()))
