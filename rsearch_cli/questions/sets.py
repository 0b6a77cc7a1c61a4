"""What a question set is, which ones there are, and what sets from a file have in common.

Place in the path: commands call `open_question_set`; everything after works on `Question` and
`Passage`. On failure: `RecipeValueError` for an unknown set, `DataError` for an unknown split or a
set without a corpus, `DataEmpty` where no question is left.

A new set is one module and one line in `QUESTION_SETS`; another package adds its own through the
entry point group `rsearch.question_sets`. Either way the target is called with the recipe's
`questions` section and its seed, and returns a `QuestionSet`. What stands behind a colon in
`questions.source`, as in `flashrag:nq`, is the set's own business.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Protocol

from rsearch_cli.errors import DataEmpty, DataError, RecipeValueError
from rsearch_cli.questions.records import Record, write_rows_of
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.types import Passage, Question

QUESTION_SETS = {
    "world": "rsearch_cli.questions.world:open_world",
    "hotpotqa": "rsearch_cli.questions.hotpotqa:open_hotpotqa",
    "custom": "rsearch_cli.questions.custom:open_custom",
    "flashrag": "rsearch_cli.questions.flashrag:open_flashrag",
}
ENTRY_POINT_GROUP = "rsearch.question_sets"

_VALIDATION = ("validation", "dev", "valid", "val", "development", "eval")
"""What files call the split `validation`."""
WHOLE = "all"
"""Split of a set from a file that holds every question of it."""
NO_CORPUS = (
    "brings no corpus; set search.sources.<name>.corpus to a file of passages, such as JSONL with "
    '{"id", "title", "text"} a line, for every source'
)
"""How a message goes on that begins with the name of a set without passages."""

_WITHOUT_VARIANT = ("world", "custom")


class QuestionSet(Protocol):
    """Questions by split, with their corpus where they bring one.

    It may have a method `records(split)`, which gives the questions of a split (of the whole file
    for None, or of `train`) with the rows that they are kept as; see `load_records`.
    """

    @property
    def name(self) -> str:
        """What messages and reports call the set."""
        ...

    @property
    def description(self) -> str:
        """One line on where it comes from, for reports."""
        ...

    def load(self, split: str, limit: int | None) -> list[Question]:
        """The first `limit` questions of a split (None: all), always in the same order.

        Raises:
            DataError: There is no such split; the message names those that there are.
            DataEmpty: The split holds no question.
        """
        ...

    def corpus(self) -> Iterator[Passage]:
        """All passages that come with the set, over all splits.

        Raises:
            DataError: The set brings none.
        """
        ...


def open_question_set(recipe: QuestionsConfig, seed: int) -> QuestionSet:
    """Open the set that `questions.source` names.

    Args:
        recipe: The recipe's `questions` section.
        seed: The recipe's seed; it decides which questions are held out of a file without splits.

    Raises:
        RecipeValueError: No set has this name, or it lacks a setting.
        DataError: The set cannot be read.
    """
    plugins = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    targets = plugins | QUESTION_SETS
    name, _, variant = recipe.source.partition(":")
    if variant and name in _WITHOUT_VARIANT:
        raise RecipeValueError(
            f"questions.source: '{name}' has no variants, got '{recipe.source}'; write {name}"
        )
    if name not in targets:
        near = get_close_matches(name, targets, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise RecipeValueError(
            f"questions.source: no question set is called '{recipe.source}'{hint} "
            f"There are {', '.join(sorted(targets))}"
        )
    opened: QuestionSet = resolve_name(targets[name])(recipe, seed)
    return opened


def load_records(opened: QuestionSet, split: str | None) -> list[Record]:
    """The questions of a split with the rows that they are kept as in a file.

    Args:
        opened: A set that does not tell its rows gets such as custom sets have.
        split: None is the whole of a file, and `train` of any other set.

    Raises:
        DataError: There is no such split, or it cannot be read.
    """
    records = getattr(opened, "records", None)
    if records is not None:
        return list(records(split))
    return write_rows_of(opened.load(split or "train", None))


@dataclass(frozen=True)
class FileQuestionSet:
    """A set that was read from a file as a whole.

    Attributes:
        name: What messages and reports call the set.
        description: One line on where it comes from.
        splits: Questions by split, in the order of the file.
        passages: The corpus that comes with them, or None.
        reread: Reads the file again, for `records`; rows would fill the memory of every run.
    """

    name: str
    description: str
    splits: Mapping[str, Sequence[Question]]
    passages: Sequence[Passage] | None = None
    reread: Callable[[], Iterable[Record]] | None = None

    def load(self, split: str, limit: int | None) -> list[Question]:
        """The first `limit` questions of a split; see `QuestionSet.load`.

        Split `all`, unless the file has one of that name, is every question of the file.
        """
        if split == WHOLE and WHOLE not in self.splits:
            distinct = {q.id: q for questions in self.splits.values() for q in questions}
            return list(distinct.values())[:limit]
        split = _spell_split(split, self.splits)
        require_split(self.name, split, self.splits)
        if not self.splits[split]:
            raise DataEmpty(
                f"{self.name}: split '{split}' is empty, the file has too few questions to keep "
                "any for it; add some, or use split 'train' for both"
            )
        return list(self.splits[split][:limit])

    def records(self, split: str | None) -> list[Record]:
        """The questions of a split, or of the whole file, with their rows, in its order."""
        splits = self.splits if split is None else {split: self.load(split, None)}
        questions = {q.id: q for kept in splits.values() for q in kept}
        if self.reread is None:
            return write_rows_of(questions.values())
        return [record for record in self.reread() if record.question.id in questions]

    def corpus(self) -> Iterator[Passage]:
        """The passages of the file; see `QuestionSet.corpus`."""
        if self.passages is None:
            raise DataError(f"{self.name} {NO_CORPUS}")
        return iter(self.passages)


def require_split(set_name: str, split: str, known: Mapping[str, object] | Sequence[str]) -> None:
    """Check that a set has a split.

    Raises:
        DataError: It has not; the message names those that it has.
    """
    if split not in known:
        raise DataError(
            f"{set_name} has no split '{split}'; it has {', '.join(known)}: name one of them in "
            "evaluate.split, questions.train_split or --split"
        )


def _spell_split(split: str, known: Mapping[str, object]) -> str:
    """The name under which a file has a split: `dev` is `validation`, unless it has both."""
    if split in known or split not in _VALIDATION:
        return split
    return next((name for name in _VALIDATION if name in known), split)


def keep_levels(
    questions: Sequence[Question], levels: Sequence[str] | None, origin: str
) -> list[Question]:
    """Keep the questions whose level is among `levels` (None: all).

    Raises:
        DataEmpty: None is left; the message counts the levels that `origin` has.
    """
    kept = [q for q in questions if levels is None or q.level in levels]
    if not kept:
        counts = Counter(q.level or "no level" for q in questions)
        there = ", ".join(f"{level} ({count})" for level, count in sorted(counts.items()))
        remedy = "keep all with questions.difficulty=null"
        if any(q.level for q in questions):
            remedy = f"name a level that is there, or {remedy}"
        raise DataEmpty(
            f"{origin}: no question is left at questions.difficulty {', '.join(levels or ())}; "
            f"it has {there}: {remedy}"
        )
    return kept


def deal_splits(
    questions: Sequence[Question], held_out_share: float, seed: int
) -> dict[str, list[Question]]:
    """Deal questions out to `train` and `validation` (`test` is the same as `validation`).

    Each goes by the hash of its own id, so adding rows to a file moves none of the old ones. Of two
    or more questions each side gets at least one.

    Args:
        questions: With unique ids; both sides keep their order.
        held_out_share: Chance of a question to be held out, in (0, 1).
        seed: Another seed, another deal.
    """
    draws = {q.id: _draw(q.id, seed) for q in questions}
    held_out = {name for name, draw in draws.items() if draw < held_out_share}
    if len(draws) < 2:
        held_out = set()
    elif not held_out:
        held_out = {min(draws, key=draws.__getitem__)}
    elif len(held_out) == len(draws):
        held_out.discard(max(draws, key=draws.__getitem__))
    validation = [q for q in questions if q.id in held_out]
    train = [q for q in questions if q.id not in held_out]
    return {"train": train, "validation": validation, "test": validation}


def _draw(name: str, seed: int) -> float:
    """A number in [0, 1) that only depends on id and seed."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
