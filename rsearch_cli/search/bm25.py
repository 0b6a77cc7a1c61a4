"""BM25 over a corpus: the source that needs neither a key nor the network.

An index is built once per content of a corpus and kept on disk; the passages of a corpus file are
read from there one by one. A damaged index is rebuilt. If the folder cannot be written, there is a
warning and the index is rebuilt in every run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.compat.bm25s import import_bm25s
from rsearch_cli.errors import DataEmpty, DataMalformed, RecipeKeyError
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.analyzer import split_query
from rsearch_cli.search.corpus import hash_corpus, hash_file, read_corpus, stream_corpus
from rsearch_cli.search.index_folder import (
    PASSAGES,
    StoredPassages,
    build_scorer,
    is_whole,
    read_key,
    staged_folder,
    store_passages,
    write_key,
)
from rsearch_cli.search.sources import SearchRequest, SearchSource, opens
from rsearch_cli.search.title_index import TitleIndex
from rsearch_cli.services.cache import cache_root
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

INDEX_VERSION = 2
"""Increase it when the words of a passage or the scoring change."""

_FUSED = 50  # passages of the BM25 ranking that are fused with those titled by a name
_NAMESAKES = 3  # most passages with one title


@dataclass(frozen=True)
class Bm25Index:
    """The BM25 index of a corpus.

    Attributes:
        passages: `[n]`, in the order of the corpus.
        key: Hash of the content, and the version of the index; equal keys give equal answers.
        scorer: The `bm25s.BM25` over `passages`.
    """

    passages: Sequence[Passage]
    key: str
    scorer: Any

    def score(self, words: list[str]) -> NDArray[np.float32]:
        """Score every passage for folded words: `[n]`, 0 if it contains none of them.

        A word that is given twice counts twice.
        """
        ids = self.scorer.get_tokens_ids(words)
        scores: NDArray[np.float32] = self.scorer.get_scores_from_ids(ids)
        return scores

    @cached_property
    def titles(self) -> TitleIndex:
        """The index of the passages' titles, shared by all sources of a corpus."""
        if isinstance(self.passages, StoredPassages):
            return self.passages.titles()
        return TitleIndex.of(passage.title for passage in self.passages)

    def mask(self, name: str | None) -> NDArray[np.float32]:
        """Return which passages belong to a source name, all for None: `[n]`, 1 or 0."""
        import numpy as np

        if name is None:
            return np.ones(len(self.passages), dtype=np.float32)
        if isinstance(self.passages, StoredPassages):
            sources: Iterable[str] = self.passages.sources
        else:
            sources = (passage.source for passage in self.passages)
        return np.array([source in ("", name) for source in sources], dtype=np.float32)


class Bm25Source(SearchSource):
    """The passages of an index that belong to one source name.

    Args:
        name: The source name; None for all passages.
        index: The index.

    Attributes:
        size: Number of passages.
    """

    cache_days = None

    def __init__(self, name: str | None, index: Bm25Index) -> None:
        self.fingerprint = f"bm25/{index.key}/{name}"
        self._index = index
        self._mask = index.mask(name)
        self.size = int(self._mask.sum())

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Return the best passages; those that share no word with the request are left out.

        Equal scores are in the order of the corpus. The search runs in a worker thread, because a
        large corpus would otherwise hold up the requests that are in flight on the event loop.
        """
        return await asyncio.to_thread(self._search, request)

    def _search(self, request: SearchRequest) -> list[Passage]:
        own = self._score_own(request)
        if request.match_titles:
            ranking = self._rank(request, own, max(request.top_k, _FUSED))
            fused = fuse_rankings([list(ranking), self._find_titled(request.expansion, own)])
            best = dict(list(fused.items())[: request.top_k])
        else:
            best = self._rank(request, own, request.top_k)
        return [replace(self._index.passages[i], score=score) for i, score in best.items()]

    def _score_own(self, request: SearchRequest) -> NDArray[np.float32]:
        """Score every passage for the node's own words: `[n]`."""
        return self._index.score(split_query(request.query)) * self._mask

    def _rank(
        self, request: SearchRequest, own: NDArray[np.float32], count: int
    ) -> dict[int, float]:
        """Return the best passages for a request with their scores, best first."""
        scores = own
        if request.expansion:
            # A word of several names counts once, or it would outweigh the rest.
            added = dict.fromkeys(w for name in request.expansion for w in split_query(name))
            scores = own * request.own_words_weight + self._index.score(list(added)) * self._mask
        return {i: float(scores[i]) for i in _pick_best(scores, count)}

    def _find_titled(self, names: Sequence[str], own: NDArray[np.float32]) -> list[int]:
        """Return the passages titled by a name, in the order of the names.

        Of namesakes, the one that matches the node's own words best comes first.
        """
        titled = [[i for i in self._index.titles.find(name) if self._mask[i]] for name in names]
        for namesakes in titled:
            namesakes.sort(key=lambda i: -own[i])
        return list(dict.fromkeys(i for namesakes in titled for i in namesakes[:_NAMESAKES]))


@opens(Bm25Source)
def open_bm25(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, Bm25Source]:
    """Open the BM25 sources of a recipe; those with the same corpus share an index.

    Args:
        configs: Settings by source name.
        corpus: Returns the passages that come with the question set, for `corpus: questions`.
        index_dir: Folder of the indexes; None uses `indexes` in the cache folder.

    Raises:
        DataError: A corpus cannot be read or is empty.
        RecipeKeyError: A source has options.
    """
    folder = indexes_folder() if index_dir is None else index_dir
    for name, config in configs.items():
        if config.options:
            raise RecipeKeyError(
                f"search.sources.{name}.options: a source of type bm25 has none, got "
                f"{', '.join(config.options)}"
            )
    indexes = open_named(configs, corpus, folder)
    sources = {name: Bm25Source(name, indexes[config.corpus]) for name, config in configs.items()}
    refuse_empty(configs, sources)
    return sources


def open_named(
    configs: Mapping[str, SourceConfig], corpus: Callable[[], Iterable[Passage]], folder: Path
) -> dict[str, Bm25Index]:
    """Open the BM25 index of every corpus that sources name, as `open_bm25` does."""
    names = dict.fromkeys(config.corpus for config in configs.values())
    return {name: _open(name, corpus, folder) for name in names}


def refuse_empty(configs: Mapping[str, SourceConfig], sources: Mapping[str, Bm25Source]) -> None:
    """Warn of sources without a passage.

    Raises:
        DataEmpty: None of them has any.
    """
    empty = [name for name, source in sources.items() if not source.size]
    if empty and len(empty) == len(configs):
        corpora = ", ".join(dict.fromkeys(config.corpus for config in configs.values()))
        raise DataEmpty(
            f"no passage of corpus {corpora} answers for a search source of the recipe "
            f"({', '.join(empty)}): the field 'source' of every passage names another one; rename "
            "it, or leave it out"
        )
    for name in empty:
        corpus_name = configs[name].corpus
        logger.warning(
            f"search source {name} has no passage in corpus {corpus_name}: it finds nothing"
        )


def open_index(passages: Sequence[Passage], folder: Path) -> Bm25Index:
    """Load the index of these passages from `folder`, or build and store it there.

    Raises:
        DataEmpty: No passage holds a word.
    """
    key = f"{hash_corpus(passages)[:32]}-v{INDEX_VERSION}-{import_bm25s().__version__}"
    if _is_kept(folder / key):
        return Bm25Index(tuple(passages), key, _load_scorer(folder / key))
    scorer = build_scorer(passages)
    try:
        with staged_folder(folder / key) as state:
            scorer.save(state, show_progress=False)
    except OSError as error:
        _say_not_kept(folder / key, error)
    return Bm25Index(tuple(passages), key, scorer)


def open_corpus(corpus: Path, folder: Path) -> Bm25Index:
    """Open a corpus of any size through its index in `folder`, which is built if it is missing.

    Args:
        corpus: File of passages, or a folder made by `prepare_corpus`.
        folder: Folder of the indexes.

    Raises:
        DataError: The corpus cannot be used.
    """
    if corpus.is_dir():
        if not is_whole(corpus):
            raise DataMalformed(
                f"corpus {corpus} is a folder without a whole index; make it with: rsearch index "
                f"CORPUS.jsonl --output {corpus}"
            )
        if read_version(corpus) != INDEX_VERSION:
            logger.info(
                f"corpus {corpus} was indexed by another version of rsearch; indexing it again"
            )
            return open_corpus(corpus / PASSAGES, folder)
        return _map(corpus)
    target = folder / corpus_key(corpus)
    try:
        if not _is_kept(target):
            prepare_corpus(corpus, target)
        return _map(target)
    except OSError as error:
        _say_not_kept(target, error)
        return open_index(read_corpus(corpus), folder)


def prepare_corpus(
    corpus: Path, target: Path, on_read: Callable[[int], None] = lambda count: None
) -> None:
    """Build a folder with the passages of a corpus file and their index.

    Passages are written one by one; memory has to hold their words as numbers and the scores of the
    index, about three times the size of the file.

    Args:
        corpus: File of passages.
        target: The folder; an existing one is replaced.
        on_read: Called after every passage with the number of passages read.

    Raises:
        DataError: The corpus cannot be used.
        OSError: The folder cannot be written.
    """
    with staged_folder(target) as state:
        scorer = build_scorer(store_passages(stream_corpus(corpus), state, on_read))
        scorer.save(state, show_progress=False)
        write_key(state, corpus_key(corpus))


def corpus_key(corpus: Path) -> str:
    """Return the key of a corpus file's index: hash of its bytes, and versions of the index.

    Raises:
        DataNotFound: There is no such file, or it cannot be read.
    """
    return f"{hash_file(corpus)[:32]}-f{INDEX_VERSION}-{import_bm25s().__version__}"


def read_version(folder: Path) -> int:
    """Return the `INDEX_VERSION` of a prepared corpus."""
    return int(read_key(folder).split("-")[1][1:])


def indexes_folder() -> Path:
    """Return the default folder of indexes: `indexes` in the cache folder."""
    return cache_root() / "indexes"


def _open(name: str, from_questions: Callable[[], Iterable[Passage]], folder: Path) -> Bm25Index:
    if name != "questions":
        return open_corpus(Path(name).expanduser(), folder)
    passages = list(from_questions())
    if not passages:
        raise DataEmpty(
            "the question set brings no passages along; set search.sources.<name>.corpus to a "
            "file of passages"
        )
    return open_index(passages, folder)


def _is_kept(folder: Path) -> bool:
    """Whether there is an intact index, byte for byte; a damaged one is reported."""
    whole = is_whole(folder)
    if whole is False:
        logger.warning(f"BM25 index {folder} is damaged; building it again")
    return bool(whole)


def _map(folder: Path) -> Bm25Index:
    """Map a prepared corpus into memory."""
    return Bm25Index(StoredPassages(folder), read_key(folder), _load_scorer(folder))


def _load_scorer(folder: Path) -> Any:
    return import_bm25s().BM25.load(folder, mmap=True, show_progress=False)


def fuse_rankings(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """Merge rankings by reciprocal rank fusion, best first.

    The score of an item is the sum of `1 / (60 + rank)` over the rankings that contain it (Cormack,
    Clarke and Buettcher, SIGIR 2009).
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (60 + rank)
    return dict(sorted(scores.items(), key=lambda entry: -entry[1]))


def _pick_best(scores: NDArray[np.float32], top_k: int) -> list[int]:
    """Return the indices of the `top_k` highest scores above 0, best first, ties in order."""
    import numpy as np

    least = 0.0
    if top_k < len(scores):
        least = np.partition(scores, -top_k)[-top_k]
    candidates = np.flatnonzero((scores >= least) & (scores > 0))
    best_first = np.argsort(-scores[candidates], kind="stable")
    best: list[int] = candidates[best_first[:top_k]].tolist()
    return best


def _say_not_kept(folder: Path, error: OSError) -> None:
    logger.warning(f"BM25 index {folder} cannot be kept ({error}); it is built again next time")
