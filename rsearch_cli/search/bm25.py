"""BM25 over a corpus: the source that needs neither a key nor the network.

An index is built once per content of a corpus and kept on disk; the passages of a corpus file are
read from there one by one. A damaged index is rebuilt. If the folder cannot be written, there is a
warning and the index is rebuilt in every run.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound, RecipeKeyError
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.analyzer import split_query
from rsearch_cli.search.corpus import NAME_FILE, hash_corpus, hash_file, read_corpus, stream_corpus
from rsearch_cli.search.index_folder import (
    PASSAGES,
    StoredPassages,
    building_alone,
    is_whole,
    read_key,
    staged_folder,
    store_passages,
    write_key,
    write_postings,
)
from rsearch_cli.search.postings import Postings, WeightedWords
from rsearch_cli.search.sources import SearchRequest, SearchSource, opens
from rsearch_cli.search.title_index import TitleIndex
from rsearch_cli.services.cache import cache_root
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

INDEX_VERSION = 5
"""Increase it when the words of a passage, the scoring or the files change."""

_FUSED = 50  # passages of the BM25 ranking that are fused with those titled by a name
_NAMESAKES = 3  # most passages with one title
# The passage mentioned first has to be among the best few, whatever the ranking says of others.
_TITLED_K = 2


@dataclass(frozen=True)
class Bm25Index:
    """The BM25 index of a corpus.

    Attributes:
        passages: `[n]`, in the order of the corpus.
        key: Hash of the content, and the version of the index; equal keys give equal answers.
        postings: The scores of the words of `passages`.
    """

    passages: Sequence[Passage]
    key: str
    postings: Postings

    @cached_property
    def titles(self) -> TitleIndex:
        """The index of the passages' titles, shared by all sources of a corpus."""
        if isinstance(self.passages, StoredPassages):
            return self.passages.titles()
        return TitleIndex.of(passage.title for passage in self.passages)

    def mask(self, name: str | None) -> NDArray[np.bool_] | None:
        """Return which passages belong to a source name: `[n]`; None if all of them do."""
        import numpy as np

        if name is None:
            return None
        if isinstance(self.passages, StoredPassages):
            runs = self.passages.read_sources()
        else:
            runs = [(passage.source, 1) for passage in self.passages]
        mask: NDArray[np.bool_] = np.repeat(
            [source in ("", name) for source, _ in runs], [n for _, n in runs]
        )
        return None if mask.all() else mask


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
        self.size = len(index.passages) if self._mask is None else int(self._mask.sum())

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request as it is: all of it matters."""
        return request

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Return the best passages; those that share no word with the request are left out.

        Equal scores are in the order of the corpus. The search runs in a worker thread, because a
        large corpus would otherwise hold up the requests that are in flight on the event loop.
        """
        return await asyncio.to_thread(self._search, request)

    def _search(self, request: SearchRequest) -> list[Passage]:
        count = max(request.top_k, _FUSED) if request.match_titles else request.top_k
        best = self._rank(request, count)
        if request.match_titles:
            best = self._merge_titled(request, list(best))
        return self._read(best, request.top_k)

    def _read(self, best: Mapping[int, float], top_k: int) -> list[Passage]:
        """Return the first passages of a ranking, with their scores."""
        first = islice(best.items(), top_k)
        return [replace(self._index.passages[i], score=score) for i, score in first]

    def _rank(self, request: SearchRequest, count: int) -> dict[int, float]:
        """Return the best passages for a request with their scores, best first."""
        return self._index.postings.find_best(_weigh_words(request), count, self._mask)

    def _merge_titled(self, request: SearchRequest, ranking: Sequence[int]) -> dict[int, float]:
        """Merge a ranking with the passages whose title a request mentions, best first."""
        return fuse_rankings([ranking, self._find_titled(request)], _TITLED_K)

    def _find_titled(self, request: SearchRequest) -> list[int]:
        """Return the passages whose title a request mentions, in the order of the mentions.

        Of namesakes, the one that matches the request best comes first.
        """
        import numpy as np

        mentioned = list(self._read_mentions(request.mentions or (request.query,)))
        passages = np.array([i for namesakes in mentioned for i in namesakes], dtype=np.int32)
        scored = self._index.postings.score(_weigh_words(request), passages)
        scores = dict(zip(passages.tolist(), scored.tolist(), strict=True))
        found: dict[int, None] = {}
        for namesakes in mentioned:
            namesakes.sort(key=lambda i: -scores[i])
            found |= dict.fromkeys(namesakes[:_NAMESAKES])
        return list(found)

    def _read_mentions(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the passages of each title that occurs in some texts, which take turns."""
        turns = zip_longest(*map(self._index.titles.find, texts), fillvalue=[])
        for passages in chain.from_iterable(turns):
            if mine := [i for i in passages if self._mask is None or self._mask[i]]:
                yield mine


def _weigh_words(request: SearchRequest) -> list[WeightedWords]:
    """Return the words of a request with their weights: its own weigh more than the expansion."""
    own = split_query(request.query)
    if not request.expansion:
        return [(own, 1)]
    # A word of several names counts once, or it would outweigh the rest.
    added = dict.fromkeys(w for name in request.expansion for w in split_query(name))
    return [(own, request.own_words_weight), (list(added), 1)]


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
    key = f"{hash_corpus(passages)[:32]}-v{INDEX_VERSION}"
    target = folder / key
    try:
        if not _is_kept(target):
            with building_alone(target):
                if not is_whole(target):
                    with staged_folder(target) as state:
                        write_postings(passages, state)
        postings = Postings(target, len(passages))
    except OSError as error:
        logger.warning(f"BM25 index {target} cannot be kept ({error}); it is built again next time")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as elsewhere:
            write_postings(passages, Path(elsewhere))
            # What is mapped stays there when its file is removed.
            postings = Postings(Path(elsewhere), len(passages))
    return Bm25Index(tuple(passages), key, postings)


def _name_command(folder: Path) -> str:
    """Return how to build the index that a folder should contain."""
    return f"make it with: rsearch index CORPUS.jsonl --output {shlex.quote(str(folder))}"


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
                f"corpus {corpus} is a folder without a whole index; {_name_command(corpus)}"
            )
        if read_version(corpus) != INDEX_VERSION:
            logger.info(
                f"corpus {corpus} was indexed by another version of rsearch; indexing it again"
            )
            return open_corpus(corpus / PASSAGES, folder)
        return _map(corpus)
    if not corpus.suffix and not corpus.exists():
        raise DataNotFound(
            f"corpus {corpus} does not exist; {NAME_FILE}, or, for an index of one, "
            f"{_name_command(corpus)}"
        )
    target = folder / corpus_key(corpus)
    try:
        if not _is_kept(target):
            prepare_corpus(corpus, target)
        return _map(target)
    except OSError as error:
        logger.info(f"{target} cannot be written ({error}); reading {corpus} into memory")
        return open_index(read_corpus(corpus), folder)


def prepare_corpus(
    corpus: Path, target: Path, on_read: Callable[[int], None] = lambda count: None
) -> bool:
    """Build a folder with the passages of a corpus file and their index, unless it is there.

    One process builds; others wait for it.

    Args:
        corpus: File of passages.
        target: The folder; one with another content is replaced.
        on_read: Called after every passage with the number of passages read.

    Returns:
        Whether it was built.

    Raises:
        DataError: The corpus cannot be used.
        OSError: The folder cannot be written.
    """
    key = corpus_key(corpus)
    with building_alone(target):
        if is_whole(target) and read_key(target) == key:
            return False
        with staged_folder(target) as state:
            write_postings(store_passages(stream_corpus(corpus), state, on_read), state)
            write_key(state, key)
    return True


def corpus_key(corpus: Path) -> str:
    """Return the key of a corpus file's index: hash of its bytes, and version of the index.

    Raises:
        DataNotFound: There is no such file, or it cannot be read.
    """
    return f"{hash_file(corpus)[:32]}-f{INDEX_VERSION}"


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
    passages = StoredPassages(folder)
    return Bm25Index(passages, read_key(folder), Postings(folder, len(passages)))


def fuse_rankings(rankings: Sequence[Sequence[int]], k: int = 60) -> dict[int, float]:
    """Merge rankings by reciprocal rank fusion, best first.

    The score of an item is the sum of `1 / (k + rank)` over the rankings that contain it (Cormack,
    Clarke and Buettcher, SIGIR 2009). A small `k` favours the top of each ranking over items that
    are somewhere in all of them.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
    return dict(sorted(scores.items(), key=lambda entry: -entry[1]))
