"""HotpotQA (Yang et al., arXiv 1809.09600) in its own schema, from a file or from the Hub.

Place in the path: a question set; the paragraphs that come with its questions are the corpus. On
failure: `DataMalformed` names the row, `DataNotFound` says what to do where the Hub is out of
reach, `DataEmpty` which levels there are. The Hub set has two variants: `hotpotqa` or
`hotpotqa:distractor`, whose ten paragraphs hold the evidence, and `hotpotqa:fullwiki`, whose ten
were found by a search in all of Wikipedia (they differ on validation only).

Both forms of the schema are read. `supporting_facts` and `context` are, on the Hub, objects of
parallel lists (`{"title": [...], "sentences": [[...], ...]}`) and, in the authors' files, lists of
pairs (`[[title, [sentence, ...]], ...]`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import DataNotFound, RecipeValueError
from rsearch_cli.questions.records import Record, keep_row
from rsearch_cli.questions.rows import Row, read_rows, require_unique, shorten
from rsearch_cli.questions.sets import (
    FileQuestionSet,
    QuestionSet,
    deal_splits,
    keep_levels,
    require_split,
)
from rsearch_cli.recipe.schema import Questions
from rsearch_cli.services.hub import ask_hub
from rsearch_cli.types import Passage, Question

HUB_ID = "hotpotqa/hotpot_qa"
HUB_CONFIGS = ("distractor", "fullwiki")
HUB_SPLITS = ("train", "validation")
_FIELDS = {"id", "_id", "question", "answer", "type", "level", "supporting_facts", "context"}


def open_hotpotqa(recipe: Questions, seed: int) -> QuestionSet:
    """Open HotpotQA from `recipe.path`, or from the Hub where that is None.

    A file has no splits of its own: `held_out_share` of it becomes `validation` (and `test`).

    Raises:
        RecipeValueError: `recipe.source` names a variant that there is not.
        DataNotFound: The file does not exist or cannot be read.
        DataMalformed: A row is not in the schema of HotpotQA, or an id comes twice.
        DataEmpty: There are no rows, or none of a level in `recipe.difficulty`.
    """
    config = recipe.source.partition(":")[2] or HUB_CONFIGS[0]
    if config not in HUB_CONFIGS:
        raise RecipeValueError(
            f"questions.source: HotpotQA has no variant '{config}'; it has {', '.join(HUB_CONFIGS)}"
        )
    if recipe.path is None:
        return HubHotpotQA(recipe.difficulty, config)
    path = Path(recipe.path).expanduser()
    rows = read_rows(path)
    questions = [parse_question(row) for row in rows]
    require_unique(zip((q.id for q in questions), rows, strict=True))
    kept = keep_levels(questions, recipe.difficulty, recipe.path)
    return FileQuestionSet(
        name="HotpotQA",
        description=f"HotpotQA from {recipe.path}, {_say_levels(recipe.difficulty)}",
        splits=deal_splits(kept, recipe.held_out_share, seed),
        passages=list(collect_passages(rows)),
        reread=lambda: (keep_row(parse_question(row), row.fields) for row in read_rows(path)),
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
        rows = _hub_rows(self.config, split, sorted(_FIELDS - {"_id", "context"}))
        questions = keep_levels([parse_question(r) for r in rows], self.levels, f"{HUB_ID} {split}")
        return questions[:limit]

    def records(self, split: str | None) -> list[Record]:
        """The questions of a split (None: of `train`) with their rows, paragraphs included.

        Raises:
            DataNotFound: The Hub cannot be reached and the set is not in its cache.
        """
        split = split or HUB_SPLITS[0]
        require_split(self.name, split, HUB_SPLITS)
        rows = _hub_rows(self.config, split, sorted(_FIELDS - {"_id"}))
        records = [keep_row(parse_question(row), row.fields) for row in rows]
        return [r for r in records if self.levels is None or r.question.level in self.levels]

    def corpus(self) -> Iterator[Passage]:
        """The paragraphs of all splits; see `QuestionSet.corpus`.

        Raises:
            DataNotFound: The Hub cannot be reached and the set is not in its cache.
        """
        splits = (_hub_rows(self.config, split, ["context"]) for split in HUB_SPLITS)
        return collect_passages(row for rows in splits for row in rows)


def parse_question(row: Row) -> Question:
    """Read everything but the paragraphs from a row of either form.

    Raises:
        DataMalformed: The row is not in the schema of HotpotQA.
    """
    titles = (title for title, _ in _pairs(row, "supporting_facts", "sent_id"))
    return Question(
        id=row.text("id" if "id" in row.fields else "_id"),
        text=row.text("question"),
        answers=(row.text("answer"),),
        type=row.text("type", default=""),
        level=row.text("level", default=""),
        supporting_titles=tuple(dict.fromkeys(titles)),
        metadata=row.extras(_FIELDS),
    )


def collect_passages(rows: Iterable[Row]) -> Iterator[Passage]:
    """Yield the paragraphs of all rows once each, as passages that answer for every source.

    A passage's id is its title; another text under the same title gets `#2`, which no title of
    Wikipedia can hold.

    Raises:
        DataMalformed: A row's `context` is not in the schema of HotpotQA.
    """
    texts: dict[str, list[str]] = {}
    for row in rows:
        for title, sentences in _pairs(row, "context", "sentences"):
            if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
                raise row.malformed(
                    f"'context': the sentences of {shorten(title)} must be a list of strings, "
                    f"not {shorten(sentences)}"
                )
            text = " ".join(s.strip() for s in sentences if s.strip())
            known = texts.setdefault(title, [])
            if text in known:
                continue
            known.append(text)
            number = len(known)
            yield Passage(title if number == 1 else f"{title}#{number}", title, text)


def _pairs(row: Row, key: str, second: str) -> list[tuple[str, Any]]:
    """The `(title, ...)` pairs of `supporting_facts` or `context`, whichever form they have."""
    value = row.fields.get(key)
    if isinstance(value, dict):
        titles, others = value.get("title"), value.get(second)
        if isinstance(titles, list) and isinstance(others, list) and len(titles) == len(others):
            value = list(zip(titles, others, strict=True))
    if not isinstance(value, list) or not all(_is_pair(entry) for entry in value):
        raise row.malformed(
            f'\'{key}\' must be {{"title": [...], "{second}": [...]}} with lists of one length, '
            f"or a list of [title, {second}] pairs; it is {shorten(value)}"
        )
    return [(title, other) for title, other in value]


def _is_pair(entry: object) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)


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
