"""The registry of question sets, and what sets that are read from a file have in common.

To add a set, write a module with an opener and add one line to `QUESTION_SETS`; other packages use
the entry point group `rsearch.question_sets`. An opener is called with the recipe's `questions`
section and its seed and returns a `QuestionSet`; for a set that fits in memory,
`FileQuestionSet.from_questions` is enough. Sets interpret suffixes in `questions.source`, such as
`nq` in `flashrag:nq`, themselves.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Protocol, runtime_checkable

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

WHOLE = "all"
"""Split of a file that contains every question in it."""
NO_CORPUS = (
    "has no corpus; set search.sources.<name>.corpus of every source to a file of passages, such "
    'as JSONL with {"id", "title", "text"} rows'
)
"""Message about a set without passages; the name of the set comes before it."""

_WITHOUT_VARIANT = ("world", "custom")
# Names of the validation split in files.
_VALIDATION = ("validation", "dev", "valid", "val", "development", "eval")


class QuestionSet(Protocol):
    """Questions by split, and the corpus that belongs to them, if any."""

    @property
    def name(self) -> str:
        """Name in messages and reports."""
        ...

    @property
    def description(self) -> str:
        """One line on the origin of the questions, for reports."""
        ...

    def load(self, split: str, limit: int | None) -> list[Question]:
        """Return the first `limit` questions of a split (None: all), always in the same order.

        Raises:
            DataError: There is no such split; the message lists the existing ones.
            DataEmpty: The split has no questions.
        """
        ...

    def corpus(self) -> Iterator[Passage]:
        """Return the passages of all splits.

        Raises:
            DataError: The set has no corpus.
        """
        ...


@runtime_checkable
class HasRecords(Protocol):
    """Optional part of a `QuestionSet`: questions with their original rows, for `rsearch data`."""

    def records(self, split: str | None) -> list[Record]:
        """Return the questions of a split with their rows.

        None stands for all questions of a file, and for the training split of any other set.
        """
        ...


def open_question_set(config: QuestionsConfig, seed: int) -> QuestionSet:
    """Open the question set that `questions.source` names.

    Args:
        config: The recipe's `questions` section.
        seed: The recipe's seed, which decides which questions of a file without splits are held
            out.

    Raises:
        RecipeValueError: There is no set of this name, or it lacks a setting.
        DataError: The set cannot be read.
    """
    plugins = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    targets = plugins | QUESTION_SETS
    name, _, variant = config.source.partition(":")
    if variant and name in _WITHOUT_VARIANT:
        raise RecipeValueError(
            f"questions.source: '{name}' has no variants, got '{config.source}'; use {name}"
        )
    if name not in targets:
        near = get_close_matches(name, targets, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise RecipeValueError(
            f"questions.source: unknown question set '{config.source}'{hint} "
            f"Available: {', '.join(sorted(targets))}. Where to search is set with "
            "search.sources.<name>.type"
        )
    opened: QuestionSet = resolve_name(targets[name])(config, seed)
    return opened


def load_records(opened: QuestionSet, split: str | None) -> list[Record]:
    """Return the questions of a split with rows as stored in a file.

    Args:
        opened: The set; without `HasRecords`, rows are generated in the form of custom sets.
        split: None stands for all questions of a file, and for the training split of any other
            set.

    Raises:
        DataError: The split does not exist or cannot be read.
    """
    if isinstance(opened, HasRecords):
        return list(opened.records(split))
    return write_rows_of(opened.load(split or "train", None))


@dataclass(frozen=True)
class FileQuestionSet:
    """A question set in memory, usually read from a file.

    Attributes:
        name: Name in messages and reports.
        description: One line on the origin of the questions.
        splits: Questions by split, in the order of the file.
        passages: The corpus, or None.
        reread: Reads the file again for `records`; keeping all rows would cost memory in every run.
    """

    name: str
    description: str
    splits: Mapping[str, Sequence[Question]]
    passages: Sequence[Passage] | None = None
    reread: Callable[[], Iterable[Record]] | None = None

    @classmethod
    def from_questions(
        cls,
        name: str,
        description: str,
        questions: Sequence[Question],
        config: QuestionsConfig,
        seed: int,
        passages: Sequence[Passage] | None = None,
    ) -> FileQuestionSet:
        """Make a set of questions without splits; see `assign_splits`.

        Args:
            name: Name in messages and reports.
            description: One line on the origin of the questions.
            questions: Questions with unique ids.
            config: Its `difficulty`, `held_out_share` and `held_out_by` are used.
            seed: Decides which questions are held out.
            passages: The corpus, or None.

        Raises:
            DataEmpty: No question has a level in `config.difficulty`.
        """
        kept = keep_levels(questions, config.difficulty, name)
        splits = assign_splits(kept, config, seed)
        return cls(name, description, splits, passages)

    def load(self, split: str, limit: int | None) -> list[Question]:
        """Return the first `limit` questions of a split; see `QuestionSet.load`.

        Unless the file has a split called `all`, that name stands for all its questions.
        """
        if split == WHOLE and WHOLE not in self.splits:
            distinct = {q.id: q for questions in self.splits.values() for q in questions}
            return list(distinct.values())[:limit]
        split = _spell_split(split, self.splits)
        require_split(self.name, split, self.splits)
        if not self.splits[split]:
            raise DataEmpty(
                f"{self.name}: split '{split}' is empty because the file has too few questions to "
                "hold any out; add some, or use split 'train' for both"
            )
        return list(self.splits[split][:limit])

    def records(self, split: str | None) -> list[Record]:
        """Return the questions of a split, or of the whole file, with their rows, in file order."""
        splits = self.splits if split is None else {split: self.load(split, None)}
        questions = {q.id: q for kept in splits.values() for q in kept}
        if self.reread is None:
            return write_rows_of(questions.values())
        return [record for record in self.reread() if record.question.id in questions]

    def corpus(self) -> Iterator[Passage]:
        """Return the passages of the file; see `QuestionSet.corpus`."""
        if self.passages is None:
            raise DataError(f"{self.name} {NO_CORPUS}")
        return iter(self.passages)


def require_split(set_name: str, split: str, known: Mapping[str, object] | Sequence[str]) -> None:
    """Check that a set has a split.

    Raises:
        DataError: It does not; the message lists those that exist.
    """
    if split not in known:
        raise DataError(
            f"{set_name} has no split '{split}'; it has {', '.join(known)}: choose one with "
            "evaluate.split, questions.train_split or --split"
        )


def _spell_split(split: str, known: Mapping[str, object]) -> str:
    """Return a file's own name of a split: `dev` for `validation`, unless it has both."""
    if split in known or split not in _VALIDATION:
        return split
    return next((name for name in _VALIDATION if name in known), split)


def keep_levels(
    questions: Sequence[Question], levels: Sequence[str] | None, origin: str
) -> list[Question]:
    """Return the questions of the given levels (None: all).

    Raises:
        DataEmpty: None is left; the message counts the levels that `origin` has.
    """
    kept = [q for q in questions if levels is None or q.level in levels]
    if not kept:
        counts = Counter(q.level or "no level" for q in questions)
        found = ", ".join(f"{level} ({count})" for level, count in sorted(counts.items()))
        remedy = "keep all with questions.difficulty=null"
        if any(q.level for q in questions):
            remedy = f"choose an existing level, or {remedy}"
        raise DataEmpty(
            f"{origin}: no question has questions.difficulty {', '.join(levels or ())}; "
            f"it has {found}: {remedy}"
        )
    return kept


def assign_splits(
    questions: Sequence[Question], config: QuestionsConfig, seed: int
) -> dict[str, list[Question]]:
    """Assign questions to `train` and `validation`; `test` is the same as `validation`.

    A question's split depends on the hash of its id only, so adding rows to a file moves none of
    the others; with `held_out_by: titles`, it depends on the first id of its group, and a row that
    joins two groups may move one of them. With at least two groups, neither split is empty.

    Args:
        questions: Questions with unique ids; the order is kept.
        config: `held_out_share` is the probability that a group is held out; with `held_out_by:
            titles`, questions that share a supporting title are one group, also by way of others.
        seed: Seed of the hash.
    """
    group_of = {q.id: q.id for q in questions}
    if config.held_out_by == "titles":
        group_of = _group_by_titles(questions)
    draws = {group: _draw(group, seed) for group in group_of.values()}
    held_out = {name for name, draw in draws.items() if draw < config.held_out_share}
    if len(draws) < 2:
        held_out = set()
    elif not held_out:
        held_out = {min(draws, key=draws.__getitem__)}
    elif len(held_out) == len(draws):
        held_out.discard(max(draws, key=draws.__getitem__))
    validation = [q for q in questions if group_of[q.id] in held_out]
    train = [q for q in questions if group_of[q.id] not in held_out]
    return {"train": train, "validation": validation, "test": validation}


def _group_by_titles(questions: Sequence[Question]) -> dict[str, str]:
    """Return the group of each question, by id: the first id among those with shared titles."""
    leader = {q.id: q.id for q in questions}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    position = {q.id: i for i, q in enumerate(questions)}
    first_with: dict[str, str] = {}
    for question in questions:
        for title in question.supporting_titles:
            other = first_with.setdefault(title, question.id)
            pair = sorted((find(question.id), find(other)), key=position.__getitem__)
            leader[pair[1]] = pair[0]
    return {q.id: find(q.id) for q in questions}


def _draw(name: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on id and seed only."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
