"""HotpotQA (Yang et al., arXiv 1809.09600), from a file or from the Hub.

The context paragraphs of its questions are the corpus. The Hub set has two variants: the ten
paragraphs of `hotpotqa:distractor` (the default) contain the evidence, those of `hotpotqa:fullwiki`
were retrieved from all of Wikipedia. The two differ on the validation split only.
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


def open_hotpotqa(config: QuestionsConfig, seed: int) -> QuestionSet:
    """Open HotpotQA from `questions.path`, or from the Hub if that is None.

    A file is read like any other file of questions (see `custom.open_file`), but each row needs
    context paragraphs or supporting facts.

    Raises:
        RecipeValueError: `questions.source` names an unknown variant.
        DataError: The file cannot be used.
    """
    variant = config.source.partition(":")[2] or HUB_CONFIGS[0]
    if variant not in HUB_CONFIGS:
        raise RecipeValueError(
            f"questions.source: HotpotQA has no variant '{variant}'; "
            f"it has {', '.join(HUB_CONFIGS)}"
        )
    if config.path is None:
        return HubHotpotQA(config.difficulty, variant)
    return open_file(config, config.path, seed, name="HotpotQA", check=_require_own_row)


def _require_own_row(row: Row) -> None:
    """Refuse other questions, whose results would be reported as results on HotpotQA."""
    if row.fields.get("supporting_facts") is None and row.fields.get("context") is None:
        fields = ", ".join(key for key, value in row.fields.items() if value is not None)
        raise row.malformed(
            f"not a HotpotQA row, its fields are {fields}; use questions.source=custom and a corpus"
        )


@dataclass(frozen=True)
class HubHotpotQA:
    """The dataset on the Hub, with the splits that have answers there.

    Attributes:
        levels: Levels to keep; None means all.
        config: One of `HUB_CONFIGS`.
        name: Name in messages and reports.
    """

    levels: Sequence[str] | None
    config: str = HUB_CONFIGS[0]
    name: str = "HotpotQA"

    @property
    def description(self) -> str:
        """One line on the origin of the questions."""
        return f"{HUB_ID} ({self.config}) from the Hub, {_describe_levels(self.levels)}"

    def load(self, split: str, limit: int | None) -> list[Question]:
        """Return the first `limit` questions of a split; see `QuestionSet.load`.

        Raises:
            DataNotFound: The Hub is unreachable and the dataset is not in the local cache.
        """
        require_split(self.name, split, HUB_SPLITS)
        rows = _hub_rows(self.config, split, sorted(_FIELDS - {"context"}))
        questions = keep_levels([parse_question(r) for r in rows], self.levels, f"{HUB_ID} {split}")
        return questions[:limit]

    def records(self, split: str | None) -> list[Record]:
        """Return the questions of a split (None: `train`) with their rows, paragraphs included.

        Raises:
            DataNotFound: The Hub is unreachable and the dataset is not in the local cache.
        """
        split = split or HUB_SPLITS[0]
        require_split(self.name, split, HUB_SPLITS)
        rows = _hub_rows(self.config, split, sorted(_FIELDS))
        records = [keep_row(parse_question(row), row.fields) for row in rows]
        return [r for r in records if self.levels is None or r.question.level in self.levels]

    def corpus(self) -> Iterator[Passage]:
        """Return the paragraphs of all splits; see `QuestionSet.corpus`.

        Raises:
            DataNotFound: The Hub is unreachable and the dataset is not in the local cache.
        """
        splits = (_hub_rows(self.config, split, ["context"]) for split in HUB_SPLITS)
        return collect_passages(find_paragraphs(row) or () for rows in splits for row in rows)


def _hub_rows(config: str, split: str, columns: list[str]) -> Iterator[Row]:
    """Yield the rows of a split, decoding only the given columns."""
    from datasets import load_dataset

    ask_hub()
    try:
        table = load_dataset(HUB_ID, config, split=split)
    except Exception as error:  # datasets passes on exceptions of several libraries
        raise DataNotFound(
            f"{HUB_ID} cannot be downloaded from the Hub ({type(error).__name__}); go online once, "
            "or set questions.path to a local HotpotQA file"
        ) from error
    for number, fields in enumerate(table.select_columns(columns), start=1):
        yield Row(f"{HUB_ID} {split}", f"row {number}", fields)


def _describe_levels(levels: Sequence[str] | None) -> str:
    return "all levels" if levels is None else f"level {' or '.join(levels)}"
