"""The question sets of FlashRAG (Jin et al., arXiv 2405.13576): many sets in one form.

Place in the path: a question set, named `flashrag:NAME`; sets whose rows carry paragraphs bring
them as the corpus. On failure: `DataMalformed` names the row, `DataNotFound` says what to do where
the Hub is out of reach, `DataError` which splits there are.

    {"id": "dev_0", "question": "...", "golden_answers": ["...", ...], "metadata": {...}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from rsearch_cli.errors import DataError, DataNotFound, RecipeValueError
from rsearch_cli.questions.contexts import collect_passages, find_paragraphs
from rsearch_cli.questions.custom import open_file
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.records import Record, write_rows_of
from rsearch_cli.questions.rows import Row, read_rows, require_unique
from rsearch_cli.questions.sets import NO_CORPUS, QuestionSet, keep_levels, require_split
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.services.hub import ask_hub
from rsearch_cli.types import Passage, Question

HUB_ID = "RUC-NLPIR/FlashRAG_datasets"
HUB_SPLITS = {
    "nq": ("train", "validation", "test"),
    "triviaqa": ("train", "validation", "test"),
    "popqa": ("test",),
    "hotpotqa": ("train", "validation"),
    "2wikimultihopqa": ("train", "validation"),
    "musique": ("train", "validation"),
    "bamboogle": ("test",),
}
"""The sets that people compare on, with their splits; the Hub has more."""

# FlashRAG calls the validation split `dev`.
_FILES = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}


def open_flashrag(recipe: QuestionsConfig, seed: int) -> QuestionSet:
    """Open a set from the Hub, from a folder of its splits, or from one file.

    Args:
        recipe: `source` is `flashrag:NAME`. `path` is a folder that holds `train.jsonl`,
            `dev.jsonl` and `test.jsonl`, or those in a folder NAME, or one file, of which
            `held_out_share` becomes `validation` (and `test`).
        seed: Decides which questions of a single file are held out.

    Raises:
        RecipeValueError: Neither a name nor a path is given.
        DataNotFound: `path` does not exist or holds none of the files.
        DataError: A file cannot be used.
    """
    name = recipe.source.partition(":")[2]
    if recipe.path is None:
        if not name:
            raise RecipeValueError(
                "questions.source: 'flashrag' needs the name of a set, as in flashrag:nq; "
                f"there are {', '.join(HUB_SPLITS)} and more"
            )
        files = {split: partial(_download, name, split) for split in _hub_splits(name)}
        return FlashRag(name, f"{name} from {HUB_ID} on the Hub", files, recipe.difficulty)
    path = Path(recipe.path).expanduser()
    if path.is_dir():
        folder = path / name if name and (path / name).is_dir() else path
        found = {s: folder / f for s, f in _FILES.items() if (folder / f).is_file()}
        if not found:
            raise DataNotFound(
                f"{folder} holds none of {', '.join(_FILES.values())}; set questions.path to a "
                "folder of FlashRAG files, or to one of them"
            )
        local = {split: partial(Path, file) for split, file in found.items()}
        return FlashRag(name or folder.name, f"questions from {folder}", local, recipe.difficulty)
    return open_file(recipe, recipe.path, seed)


@dataclass(frozen=True)
class FlashRag:
    """A set with one file a split.

    Attributes:
        name: What messages and reports call the set.
        description: One line on where it comes from.
        files: Split to what gives its file, downloading it where it must.
        levels: Levels to keep, or None for all.
    """

    name: str
    description: str
    files: Mapping[str, partial[Path]]
    levels: Sequence[str] | None

    def load(self, split: str, limit: int | None) -> list[Question]:
        """The first `limit` questions of a split; see `QuestionSet.load`."""
        questions = read_questions(self._rows(split))
        return keep_levels(questions, self.levels, f"{self.name} {split}")[:limit]

    def records(self, split: str | None) -> list[Record]:
        """The questions of a split (None: of `train`) with rows such as custom sets have."""
        return write_rows_of(self.load(split or "train", None))

    def corpus(self) -> Iterator[Passage]:
        """The paragraphs of all splits; see `QuestionSet.corpus`."""
        rows = [row for split in self.files for row in self._rows(split)]
        contexts = [found for row in rows if (found := find_paragraphs(row)) is not None]
        if not contexts:
            raise DataError(f"{self.name} {NO_CORPUS}")
        return collect_passages(contexts)

    def _rows(self, split: str) -> list[Row]:
        require_split(self.name, split, self.files)
        return read_rows(self.files[split]())


def read_questions(rows: Sequence[Row]) -> list[Question]:
    """Read rows of a file.

    Raises:
        DataMalformed: A row cannot be used, or an id comes twice.
    """
    questions = [parse_question(row) for row in rows]
    require_unique(zip((q.id for q in questions), rows, strict=True))
    return questions


def _hub_splits(name: str) -> Sequence[str]:
    return HUB_SPLITS.get(name, tuple(_FILES))


def _download(name: str, split: str) -> Path:
    """The file of a split, from the Hub or its cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    file = f"{name}/{_FILES[split]}"
    ask_hub()
    try:
        return Path(hf_hub_download(HUB_ID, file, repo_type="dataset"))
    except Exception as error:  # the client lets the errors of several libraries through
        missing = isinstance(error, EntryNotFoundError)
        if missing and not isinstance(error, LocalEntryNotFoundError):
            near = get_close_matches(name, HUB_SPLITS, n=1)
            hint = f"did you mean flashrag:{near[0]}?" if near and near[0] != name else ""
            known = f"There are {', '.join(HUB_SPLITS)} and more"
            raise DataError(f"{HUB_ID} has no {file}; {hint or known}") from error
        raise DataNotFound(
            f"{HUB_ID} cannot be had from the Hub ({type(error).__name__}); go online once, or "
            f"set questions.path to a folder that holds {file}"
        ) from error
