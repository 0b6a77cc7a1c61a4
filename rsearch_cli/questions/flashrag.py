"""The question sets of FlashRAG (Jin et al., arXiv 2405.13576), named `flashrag:NAME`.

Context paragraphs in the rows, where a set has them, are the corpus.

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
from rsearch_cli.questions.fields import parse_questions
from rsearch_cli.questions.rows import Row, read_rows
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
"""Common benchmarks and their splits; the Hub has more sets."""

# FlashRAG calls the validation split `dev`.
_FILES = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}


def open_flashrag(config: QuestionsConfig, seed: int) -> QuestionSet:
    """Open a set from the Hub, from a folder of its splits, or from one file.

    Args:
        config: `source` is `flashrag:NAME`. `path` is a folder with `train.jsonl`, `dev.jsonl` and
            `test.jsonl`, directly or in a subfolder NAME, or a single file, of which
            `held_out_share` becomes `validation` (and `test`).
        seed: Decides which questions of a single file are held out.

    Raises:
        RecipeValueError: Neither a name nor a path is given.
        DataNotFound: `path` does not exist or contains none of the files.
        DataError: A file cannot be used.
    """
    name = config.source.partition(":")[2]
    if config.path is None:
        if not name:
            raise RecipeValueError(
                "questions.source: 'flashrag' needs the name of a set, such as flashrag:nq; "
                f"known ones are {', '.join(HUB_SPLITS)}"
            )
        files = {split: partial(_download, name, split) for split in _hub_splits(name)}
        return FlashRag(name, f"{name} from {HUB_ID} on the Hub", files, config.difficulty)
    path = Path(config.path).expanduser()
    if path.is_dir():
        folder = path / name if name and (path / name).is_dir() else path
        found = {s: folder / f for s, f in _FILES.items() if (folder / f).is_file()}
        if not found:
            raise DataNotFound(
                f"{folder} contains none of {', '.join(_FILES.values())}; set questions.path to a "
                "folder of FlashRAG files, or to one such file"
            )
        local = {split: partial(Path, file) for split, file in found.items()}
        return FlashRag(name or folder.name, f"questions from {folder}", local, config.difficulty)
    return open_file(config, config.path, seed)


@dataclass(frozen=True)
class FlashRag:
    """A set with one file per split.

    Attributes:
        name: Name in messages and reports.
        description: One line on the origin of the questions.
        files: By split, a function that returns its file, downloading it if necessary.
        levels: Levels to keep; None means all.
    """

    name: str
    description: str
    files: Mapping[str, partial[Path]]
    levels: Sequence[str] | None

    def load(self, split: str, limit: int | None) -> list[Question]:
        """Return the first `limit` questions of a split; see `QuestionSet.load`."""
        questions = parse_questions(self._rows(split))
        return keep_levels(questions, self.levels, f"{self.name} {split}")[:limit]

    def corpus(self) -> Iterator[Passage]:
        """Return the paragraphs of all splits; see `QuestionSet.corpus`."""
        rows = [row for split in self.files for row in self._rows(split)]
        contexts = [found for row in rows if (found := find_paragraphs(row)) is not None]
        if not contexts:
            raise DataError(f"{self.name} {NO_CORPUS}")
        return collect_passages(contexts)

    def _rows(self, split: str) -> list[Row]:
        require_split(self.name, split, self.files)
        return read_rows(self.files[split]())


def _hub_splits(name: str) -> Sequence[str]:
    return HUB_SPLITS.get(name, tuple(_FILES))


def _download(name: str, split: str) -> Path:
    """Return the file of a split, from the Hub or its local cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    file = f"{name}/{_FILES[split]}"
    ask_hub()
    try:
        return Path(hf_hub_download(HUB_ID, file, repo_type="dataset"))
    except Exception as error:  # the client passes on exceptions of several libraries
        missing = isinstance(error, EntryNotFoundError)
        if missing and not isinstance(error, LocalEntryNotFoundError):
            near = get_close_matches(name, HUB_SPLITS, n=1)
            hint = f"did you mean flashrag:{near[0]}?" if near and near[0] != name else ""
            known = f"known sets are {', '.join(HUB_SPLITS)}"
            raise DataError(f"{HUB_ID} has no {file}; {hint or known}") from error
        raise DataNotFound(
            f"{HUB_ID} cannot be downloaded from the Hub ({type(error).__name__}); go online once, "
            f"or set questions.path to a folder with {file}"
        ) from error
