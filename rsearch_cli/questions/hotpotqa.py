"""HotpotQA (Yang et al., arXiv 1809.09600), from a file or from the Hub.

The paragraphs that come with its questions are the corpus. The Hub set has two variants: `hotpotqa`
or `hotpotqa:distractor`, whose ten paragraphs hold the evidence, and `hotpotqa:fullwiki`, whose ten
were found by a search in all of Wikipedia (they differ on validation only).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rsearch_cli.errors import DataNotFound, RecipeValueError
from rsearch_cli.questions.contexts import collect_passages, find_paragraphs
from rsearch_cli.questions.custom import open_file
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.records import Record, keep_row
from rsearch_cli.questions.rows import Row
from rsearch_cli.questions.sets import QuestionSet, keep_levels, require_split
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.services.hub import ask_hub
from rsearch_cli.types import Passage, Question

HUB_ID = "hotpotqa/hotpot_qa"
HUB_CONFIGS = ("distractor", "fullwiki")
HUB_SPLITS = ("train", "validation")
_FIELDS = {"id", "question", "answer", "type", "level", "supporting_facts", "context"}


def open_hotpotqa(recipe: QuestionsConfig, seed: int) -> QuestionSet:
    """Open HotpotQA from `recipe.path`, or from the Hub where that is None.

    A file is read as any other file of questions (see `custom.open_file`), but each row must have
    paragraphs or supporting facts.

    Raises:
        RecipeValueError: `recipe.source` names a variant that there is not.
        DataError: The file cannot be used.
    """
    config = recipe.source.partition(":")[2] or HUB_CONFIGS[0]
    if config not in HUB_CONFIGS:
        raise RecipeValueError(
            f"questions.source: HotpotQA has no variant '{config}'; it has {', '.join(HUB_CONFIGS)}"
        )
    if recipe.path is None:
        return HubHotpotQA(recipe.difficulty, config)
    return open_file(recipe, recipe.path, seed, name="HotpotQA", check=_require_own_row)


def _require_own_row(row: Row) -> None:
    """Refuse other questions: what is made of them would be taken for HotpotQA's."""
    if row.fields.get("supporting_facts") is None and row.fields.get("context") is None:
        fields = ", ".join(key for key, value in row.fields.items() if value is not None)
        raise row.malformed(
            f"this is no row of HotpotQA, its fields are {fields}: read it with "
            "questions.source=custom, and name a corpus"
        )


@dataclass(frozen=True)
class HubHotpotQA:
    """The Hub set, with the splits that have answers there.

    Attributes:
        levels: Levels to keep, or None for all.
        config: One of `HUB_CONFIGS`.
        name: What messages and reports call the set.
    """

    levels: Sequence[str] | None
    config: str = HUB_CONFIGS[0]
    name: str = "HotpotQA"

    @property
    def description(self) -> str:
        """One line on where the questions come from."""
        return f"{HUB_ID} ({self.config}) from the Hub, {_say_levels(self.levels)}"

    def load(self, split: str, limit: int | None) -> list[Question]:
        """The first `limit` questions of a split; see `QuestionSet.load`.

        Raises:
            DataNotFound: The Hub cannot be reached and the set is not in its cache.
        """
        require_split(self.name, split, HUB_SPLITS)
        rows = _hub_rows(self.config, split, sorted(_FIELDS - {"context"}))
        questions = keep_levels([parse_question(r) for r in rows], self.levels, f"{HUB_ID} {split}")
        return questions[:limit]

    def records(self, split: str | None) -> list[Record]:
        """The questions of a split (None: of `train`) with their rows, paragraphs included.

        Raises:
            DataNotFound: The Hub cannot be reached and the set is not in its cache.
        """
        split = split or HUB_SPLITS[0]
        require_split(self.name, split, HUB_SPLITS)
        rows = _hub_rows(self.config, split, sorted(_FIELDS))
        records = [keep_row(parse_question(row), row.fields) for row in rows]
        return [r for r in records if self.levels is None or r.question.level in self.levels]

    def corpus(self) -> Iterator[Passage]:
        """The paragraphs of all splits; see `QuestionSet.corpus`.

        Raises:
            DataNotFound: The Hub cannot be reached and the set is not in its cache.
        """
        splits = (_hub_rows(self.config, split, ["context"]) for split in HUB_SPLITS)
        return collect_passages(find_paragraphs(row) or () for rows in splits for row in rows)


def _hub_rows(config: str, split: str, columns: list[str]) -> Iterator[Row]:
    """Rows of a split of the Hub set with only the named columns decoded."""
    from datasets import load_dataset

    ask_hub()
    try:
        table = load_dataset(HUB_ID, config, split=split)
    except Exception as error:  # datasets lets the errors of several libraries through
        raise DataNotFound(
            f"{HUB_ID} cannot be had from the Hub ({type(error).__name__}); go online once, or "
            "set questions.path to a HotpotQA file that you have"
        ) from error
    for number, fields in enumerate(table.select_columns(columns), start=1):
        yield Row(f"{HUB_ID} {split}", f"row {number}", fields)


def _say_levels(levels: Sequence[str] | None) -> str:
    return "all levels" if levels is None else f"level {' or '.join(levels)}"
