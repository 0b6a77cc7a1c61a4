"""Building a question file: a set read, cleaned, checked against its other side, and sampled.

Place in the path: the body of `rsearch data`, before anything is written. On failure: what the set
raises passes through; `DataEmpty` where no question is left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsearch_cli.errors import DataEmpty, DataError, DataNotFound
from rsearch_cli.questions.cleaning import (
    Removal,
    drop_duplicates,
    drop_leaks,
    locate_questions,
)
from rsearch_cli.questions.fields import read_question
from rsearch_cli.questions.records import Record
from rsearch_cli.questions.rows import read_rows
from rsearch_cli.questions.sets import FileQuestionSet, QuestionSet, keep_levels, load_records

# A training question must stand in no held-out split, and a held-out one not in training. Sets that
# hold out one part for validation and test both are why these two are not held against each other.
_OTHER_SIDE = {"train": ("validation", "test"), "validation": ("train",), "test": ("train",)}


@dataclass(frozen=True, slots=True)
class Build:
    """What a question file is made of, and what was found on the way.

    Attributes:
        records: What is to be written, in the order of the set.
        split: The split they are from; None is the whole of a file.
        available: Questions that could have been taken: of the levels, each once, without leaks.
        duplicates: Questions that stood in the split before.
        leaks: Questions that stand on the other side, or in the file that was named.
        checked: What the questions were held against.
        unchecked: Splits that there are and that could not be read, each with the reason.
    """

    records: list[Record]
    split: str | None
    available: int
    duplicates: list[Removal]
    leaks: list[Removal]
    checked: list[str]
    unchecked: list[str]


def build_questions(
    opened: QuestionSet,
    split: str | None,
    levels: Sequence[str] | None,
    limit: int | None,
    seed: int,
    against: Path | None,
) -> Build:
    """Choose the questions of a file.

    Args:
        opened: The set, opened with all its levels.
        split: None takes the whole of a file, and `train` of any other set.
        levels: Levels to keep; None keeps all.
        limit: Most questions; where there are more, a random sample is taken.
        seed: Seed of the sample.
        against: File with questions that must not be among them.

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
        rows = read_rows(against)
        named = ((row.place, read_question(row)) for row in rows)
        elsewhere = locate_questions(named, str(against)) | elsewhere
        checked.append(str(against))
    records, leaks = drop_leaks(records, elsewhere)
    if not records:
        raise DataEmpty(
            f"{opened.description}: all {len(leaks)} questions stand in {' or '.join(checked)} "
            "too; take another split or another --against"
        )
    available = len(records)
    if limit is not None and limit < available:
        chosen = sorted(random.Random(seed).sample(range(available), limit))
        records = [records[i] for i in chosen]
    return Build(records, split, available, duplicates, leaks, checked, unchecked)


def _read_other_side(
    opened: QuestionSet, split: str | None
) -> tuple[dict[str, str], list[str], list[str]]:
    """The questions of the splits that must share none with this one, and which these are."""
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
