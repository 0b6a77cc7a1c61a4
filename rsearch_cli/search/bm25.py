"""BM25 over a corpus: the source that needs no key and no network.

Place in the path: behind the executor, for every recipe source of type `bm25`. The index is built
once per content of the corpus and kept on disk. On failure: a corpus that cannot be used raises
`DataError`; a damaged index is built again; a folder that cannot be written costs a line on stderr
and the time to build again next time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.errors import DataEmpty, RecipeKeyError
from rsearch_cli.recipe.schema import Source
from rsearch_cli.search.corpus import hash_corpus, read_corpus
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.search.words import split_query, split_words
from rsearch_cli.services.cache import cache_root
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_VERSION = 1
"""Raise it when the words of a passage or the scoring change."""

TITLE_WEIGHT = 2
"""Times a title counts: it names the subject, and that is what queries ask for."""

_CHECKSUMS = "checksums.json"


@dataclass(frozen=True, slots=True)
class Bm25Index:
    """The searchable form of a corpus.

    Attributes:
        passages: `[n]`, in the order of the corpus.
        key: Names content and version of the index; equal keys answer alike.
        scorer: The `bm25s.BM25` over `passages`.
    """

    passages: tuple[Passage, ...]
    key: str
    scorer: Any

    def score(self, words: list[str]) -> NDArray[np.float32]:
        """Score every passage for folded words: `[n]`, 0 where none of them stands.

        A word that is given twice counts twice.
        """
        ids = self.scorer.get_tokens_ids(words)
        scores: NDArray[np.float32] = self.scorer.get_scores_from_ids(ids)
        return scores


class Bm25Source:
    """The passages of an index that answer for one source name.

    Attributes:
        fingerprint: Kind, key of the index, and the source name.
        service: None: it answers within this process.
        size: How many passages can be found.
    """

    service = ""

    def __init__(self, name: str, index: Bm25Index) -> None:
        """Let `index` answer for the source `name`."""
        import numpy as np

        self.fingerprint = f"bm25/{index.key}/{name}"
        self._index = index
        self._mask = np.array([p.source in ("", name) for p in index.passages], dtype=np.float32)
        self.size = int(self._mask.sum())

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Find the best passages; those that share no word with the request are left out.

        Equal scores stand in the order of the corpus.
        """
        scores = self._index.score(split_query(request.query))
        if request.expansion:
            # A word that stands in several names counts once, or it would outweigh the rest.
            added = dict.fromkeys(w for name in request.expansion for w in split_query(name))
            scores = scores * request.own_words_weight + self._index.score(list(added))
        scores *= self._mask
        return [
            replace(self._index.passages[i], score=float(scores[i]))
            for i in _pick_best(scores, request.top_k)
        ]


def open_bm25(
    configs: Mapping[str, Source],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, Bm25Source]:
    """Open the BM25 sources of a recipe; those with the same corpus share one index.

    Args:
        configs: Source name to its settings.
        corpus: Gives the passages that come with the question set, for `corpus: questions`.
        index_dir: Folder of the indexes; None takes `indexes` in the cache folder.

    Raises:
        DataError: A corpus cannot be read or has nothing to search.
        RecipeKeyError: A source has options.
    """
    folder = cache_root() / "indexes" if index_dir is None else index_dir
    indexes: dict[str, Bm25Index] = {}
    sources = {}
    for name, config in configs.items():
        if config.options:
            raise RecipeKeyError(
                f"search.sources.{name}.options: a source of type bm25 has none, got "
                f"{', '.join(config.options)}"
            )
        if config.corpus not in indexes:
            passages = _read_passages(config.corpus, corpus)
            indexes[config.corpus] = open_index(passages, folder)
        sources[name] = Bm25Source(name, indexes[config.corpus])
        if not sources[name].size:
            _say(f"search source {name} has no passage in corpus {config.corpus}: it finds nothing")
    return sources


def open_index(passages: Sequence[Passage], folder: Path) -> Bm25Index:
    """Load the index of these passages from `folder`, or build it and keep it there.

    Raises:
        DataEmpty: No passage holds a word.
    """
    import bm25s

    key = f"{hash_corpus(passages)[:32]}-v{INDEX_VERSION}-{bm25s.__version__}"
    scorer = _load(folder / key)
    if scorer is None:
        scorer = _build(passages)
        _keep(scorer, folder / key)
    return Bm25Index(tuple(passages), key, scorer)


def _read_passages(corpus: str, from_questions: Callable[[], Iterable[Passage]]) -> list[Passage]:
    if corpus != "questions":
        return read_corpus(Path(corpus).expanduser())
    passages = list(from_questions())
    if not passages:
        raise DataEmpty(
            "the question set brings no passages along; set search.sources.<name>.corpus to a "
            "JSONL file"
        )
    return passages


def _build(passages: Sequence[Passage]) -> Any:
    import bm25s

    words = [split_words(p.title) * TITLE_WEIGHT + split_words(p.text) for p in passages]
    if not any(words):
        raise DataEmpty(f"none of the {len(passages)} passages of the corpus holds a word")
    scorer = bm25s.BM25(backend="numpy")
    scorer.index(words, create_empty_token=False, show_progress=False)
    return scorer


def _keep(scorer: Any, folder: Path) -> None:
    """Write the index beside its place and rename it: a killed build leaves no half index."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
            draft = Path(temporary) / "index"
            scorer.save(draft, show_progress=False)
            checksums = json.dumps(_checksum(draft))
            (draft / _CHECKSUMS).write_text(checksums, encoding="utf-8")
            # Only a damaged index can stand here, or the same one from another process.
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
    except OSError as error:
        _say(f"BM25 index {folder} cannot be kept ({error}); it is built again next time")


def _load(folder: Path) -> Any | None:
    """Map the index in `folder` into memory; None unless it is whole, byte for byte."""
    import bm25s

    try:
        expected = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        if expected == _checksum(folder):
            return bm25s.BM25.load(folder, mmap=True, show_progress=False)
    except FileNotFoundError:
        if not folder.exists():
            return None
    except (OSError, ValueError):
        pass
    _say(f"BM25 index {folder} is damaged; building it again")
    return None


def _checksum(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != _CHECKSUMS:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _pick_best(scores: NDArray[np.float32], top_k: int) -> list[int]:
    """Indices of the `top_k` highest scores above 0, best first, equal ones in order."""
    import numpy as np

    least = 0.0
    if top_k < len(scores):
        least = np.partition(scores, -top_k)[-top_k]
    candidates = np.flatnonzero((scores >= least) & (scores > 0))
    best_first = np.argsort(-scores[candidates], kind="stable")
    best: list[int] = candidates[best_first[:top_k]].tolist()
    return best


def _say(line: str) -> None:
    print(line, file=sys.stderr)
