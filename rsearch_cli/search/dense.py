"""Dense and hybrid search over a corpus: vectors of an encoder, alone or fused with BM25.

A dense index stands beside the BM25 index of the same corpus and shares its passages and titles.
It is on the CPU unless a recipe asks for another device, so that training keeps the GPU's memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from rsearch_cli.errors import DataNotFound, SourceError
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.bm25 import (
    Bm25Index,
    Bm25Source,
    fuse_rankings,
    indexes_folder,
    open_corpus,
    open_named,
    refuse_empty,
)
from rsearch_cli.search.encoder import Encoder, QueryBatcher, Reranker
from rsearch_cli.search.sources import SearchRequest, opens, read_options
from rsearch_cli.search.vectors import (
    VECTORS_VERSION,
    VectorIndex,
    find_vectors,
    open_faiss_file,
    open_or_build,
)
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
BUILT_UNASKED = 20_000
"""Most passages that a run encodes by itself: about five minutes of two CPU cores."""

_CANDIDATES = 50
_NAMES = 3  # names of the parents that are searched for one by one; eight find no more


class DenseOptions(BaseConfig):
    """Settings of a source of type `dense` or `hybrid`, under `search.sources.<name>.options`."""

    encoder: str = DEFAULT_ENCODER
    """Hub id or folder of a sentence-transformers encoder."""

    query_prefix: str | None = None
    """Text before every query; null takes what the encoder expects (E5, BGE)."""

    passage_prefix: str | None = None
    """Text before every passage; null takes what the encoder expects (E5)."""

    index: str | None = None
    """Ready-made FAISS file with one vector per passage, in the order of the corpus; null uses the
    index that `rsearch index --dense` builds."""

    rerank: str | None = None
    """Hub id or folder of a cross-encoder that orders the best candidates."""

    rerank_top: int = Field(20, ge=1, le=200)
    """Candidates that the cross-encoder reads for each query."""

    device: str = "cpu"
    """Device of encoder and cross-encoder."""


@dataclass(frozen=True)
class Models:
    """What the dense sources of a recipe share.

    Attributes:
        queries: Encodes queries.
        vectors: Vectors of the corpus.
        reranker: Orders the best candidates, or None.
    """

    queries: QueryBatcher
    vectors: VectorIndex
    reranker: Reranker | None


class DenseSource(Bm25Source):
    """The passages of a corpus that belong to one source name, found by their vectors.

    Names that a node's parents found are searched for one by one, together with the node's query;
    the rankings are merged by reciprocal rank fusion.

    Args:
        name: The source name; None for all passages.
        index: BM25 index of the corpus.
        options: The recipe's options.
        models: Encoder, vectors and cross-encoder.
        hybrid: Whether to fuse the ranking of BM25, too.
    """

    def __init__(
        self,
        name: str | None,
        index: Bm25Index,
        options: DenseOptions,
        models: Models,
        hybrid: bool,
    ) -> None:
        super().__init__(name, index)
        kind = "hybrid" if hybrid else "dense"
        settings = options.model_dump_json(exclude={"device"})
        if models.reranker is not None:
            settings += f"/{models.reranker.probe():.3f}"
        self.fingerprint = f"{kind}/{models.vectors.key}/{index.key}/{name}/{settings}"
        self._options = options
        self._models = models
        self._hybrid = hybrid
        models.vectors.check(self._mask)

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Return the best passages; searched in a worker thread, as in `Bm25Source`."""
        names = await asyncio.to_thread(self._name, request)
        texts = [f"{name} {request.query}" for name in names] or [request.query]
        queries = await self._models.queries.encode(texts)
        return await asyncio.to_thread(self._find, request, queries)

    def _name(self, request: SearchRequest) -> list[str]:
        """Return the names to search for, those first that are titles of the corpus."""
        titled = [passages[0] for passages in self._read_mentions(request.mentions)]
        titles = [self._index.passages[i].title for i in titled]
        return list(dict.fromkeys([*titles, *request.expansion]))[:_NAMES]

    def _find(self, request: SearchRequest, queries: NDArray[np.float32]) -> list[Passage]:
        count = max(request.top_k, _CANDIDATES, self._options.rerank_top)
        near = self._models.vectors.search(queries, count, self._mask)
        best = near[0] if len(near) == 1 else fuse_rankings([list(ranking) for ranking in near])
        if self._hybrid:
            best = fuse_rankings([list(best), list(self._rank(request, _CANDIDATES))])
        if request.match_titles:
            best = self._merge_titled(request, list(best))
        if self._models.reranker is not None:
            best = self._rerank(self._models.reranker, request, list(best))
        return self._read(best, request.top_k)

    def _rerank(
        self, reranker: Reranker, request: SearchRequest, candidates: Sequence[int]
    ) -> dict[int, float]:
        candidates = candidates[: max(request.top_k, self._options.rerank_top)]
        passages = [self._index.passages[i] for i in candidates]
        query = " ".join([request.query, *request.expansion[:_NAMES]])
        scores = reranker.score(query, [f"{p.title}\n{p.text}" for p in passages])
        scored = zip(candidates, scores, strict=True)
        return dict(sorted(scored, key=lambda entry: -entry[1]))


@opens(DenseSource)
def open_dense(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, DenseSource]:
    """Open the dense sources of a recipe; those with the same corpus and options share all.

    Args:
        configs: Settings by source name.
        corpus: Returns the passages that come with the question set, for `corpus: questions`.
        index_dir: Folder of the indexes; None uses `indexes` in the cache folder.

    Raises:
        DataError: A corpus or an index cannot be used.
        SourceError: A model cannot be loaded, or the index is not built and would take long.
        RecipeValueError: The value of an option is invalid.
    """
    return _open_all(configs, corpus, index_dir, hybrid=False)


@opens(DenseSource)
def open_hybrid(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, DenseSource]:
    """Open the hybrid sources of a recipe; see `open_dense`."""
    return _open_all(configs, corpus, index_dir, hybrid=True)


def open_corpus_vectors(
    index: Bm25Index,
    options: DenseOptions,
    encoder: Encoder,
    indexes: Path,
    on_encoded: Callable[[int], None] = lambda count: None,
) -> tuple[VectorIndex, bool]:
    """Open the vectors of a corpus, or build them; see `open_or_build`."""
    folder = vectors_folder(indexes, index, options)
    key = index.key.partition("-")[0]
    return open_or_build(index.passages, key, options.encoder, encoder, folder, on_encoded)


def vectors_folder(indexes: Path, index: Bm25Index, options: DenseOptions) -> Path:
    """Return the folder of the vectors of a corpus, beside its BM25 index."""
    given = (options.encoder, options.passage_prefix, VECTORS_VERSION)
    base = re.sub(r"[^a-z0-9]+", "-", options.encoder.lower().rstrip("/").rsplit("/", 1)[-1])
    digest = hashlib.sha256(repr(given).encode()).hexdigest()[:8]
    corpus = index.key.partition("-")[0]
    return indexes / f"{corpus}-dense-{base[:40].strip('-')}-{digest}"


def open_whole(corpus: Path, options: DenseOptions | None, indexes: Path) -> Bm25Source:
    """Open all passages of a corpus as one source, whichever source they belong to.

    Args:
        corpus: File of passages, or a prepared folder.
        options: Encoder of a dense source; None for BM25.
        indexes: Folder of the indexes.
    """
    index = open_corpus(corpus, indexes)
    if options is None:
        return Bm25Source(None, index)
    models = _open_models(str(corpus), index, options, indexes)
    return DenseSource(None, index, options, models, hybrid=False)


def _open_all(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
    *,
    hybrid: bool,
) -> dict[str, DenseSource]:
    folder = indexes_folder() if index_dir is None else index_dir
    options = {name: read_options(DenseOptions, name, config) for name, config in configs.items()}
    indexes = open_named(configs, corpus, folder)
    models: dict[tuple[str, str], Models] = {}
    sources = {}
    for name, config in configs.items():
        index, chosen = indexes[config.corpus], options[name]
        key = (config.corpus, chosen.model_dump_json())
        if key not in models:
            models[key] = _open_models(config.corpus, index, chosen, folder)
        sources[name] = DenseSource(name, index, chosen, models[key], hybrid)
    refuse_empty(configs, sources)
    return sources


def _open_models(corpus: str, index: Bm25Index, options: DenseOptions, folder: Path) -> Models:
    if options.index is not None and not Path(options.index).expanduser().is_file():
        raise DataNotFound(
            f"index {options.index} does not exist; leave out options.index, and "
            f"{_name_command(corpus, options)}"
        )
    encoder = Encoder(options.encoder, options.query_prefix, options.passage_prefix, options.device)
    if options.index is not None:
        path = Path(options.index).expanduser()
        vectors = open_faiss_file(path, encoder, len(index.passages))
    else:
        vectors = _open_built(corpus, index, options, encoder, folder)
    reranker = None if options.rerank is None else Reranker(options.rerank, options.device)
    return Models(QueryBatcher(encoder), vectors, reranker)


def _open_built(
    corpus: str, index: Bm25Index, options: DenseOptions, encoder: Encoder, indexes: Path
) -> VectorIndex:
    """Open the index that `rsearch index --dense` built, or build it for a small corpus."""
    if len(index.passages) <= BUILT_UNASKED:
        return open_corpus_vectors(index, options, encoder, indexes)[0]
    found = find_vectors(vectors_folder(indexes, index, options), encoder)
    if found is None:
        raise SourceError(
            f"corpus {corpus} has no dense index for encoder {options.encoder}; "
            f"{_name_command(corpus, options)}"
        )
    return found


def _name_command(corpus: str, options: DenseOptions) -> str:
    """Return how to build the index of a corpus."""
    if corpus == "questions":
        return (
            "write its passages to a file (rsearch index --from-questions FILE --output "
            "corpus.jsonl), index that with --dense, and name it as the corpus"
        )
    prefix = options.passage_prefix
    more = "" if prefix is None else f" --passage-prefix {shlex.quote(prefix)}"
    return f"build it with: rsearch index {shlex.quote(corpus)} --dense {options.encoder}{more}"
