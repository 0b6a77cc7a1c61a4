"""Text encoders of sentence-transformers, with the prefixes that their families expect."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsearch_cli.errors import SourceError
from rsearch_cli.services.hub import ask_hub

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INSTALL = "pip install -c constraints.txt '.[dense]'"

_PROBE = "Which river flows through the capital of the country?"
_SAME = 0.999  # cosine of one text in one encoder on two machines, with room for rounding
_BATCH = 64

# Part of a model's name to its prefixes for queries and passages; the model cards say so.
_FAMILIES = (
    ("multilingual-e5", "query: ", "passage: "),
    ("e5-", "query: ", "passage: "),
    ("bge-m3", "", ""),
    ("bge-", "Represent this sentence for searching relevant passages: ", ""),
)


class Encoder:
    """A bi-encoder; its vectors have length 1, so that their inner product is the cosine.

    Args:
        name: Hub id, or folder.
        query_prefix: Precedes every query; None takes what the model or its family expects.
        passage_prefix: Likewise for passages.
        device: Device of torch.

    Attributes:
        dimension: Length of a vector.

    Raises:
        SourceError: It cannot be loaded, or sentence-transformers is not installed.
    """

    def __init__(
        self,
        name: str,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        device: str = "cpu",
    ) -> None:
        self._model = _load("SentenceTransformer", name, device)
        prompts = self._model.prompts or {}
        query, passage = _family_prefixes(name)
        self._query_prefix = _first(query_prefix, prompts.get("query"), query)
        self._passage_prefix = _first(
            passage_prefix, prompts.get("document"), prompts.get("passage"), passage
        )
        self.dimension: int = self._model.get_embedding_dimension()
        # torch already uses all cores for one batch.
        self._turn = threading.Lock()

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of queries: `[n, d]`."""
        return self._encode(texts, self._query_prefix)

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of passages: `[n, d]`."""
        return self._encode(texts, self._passage_prefix)

    def probe(self) -> list[float]:
        """Return the vector of a fixed passage, by which an index recognises its encoder: `[d]`."""
        vector: list[float] = self.encode_passages([_PROBE])[0].tolist()
        return vector

    def matches(self, probe: Sequence[float]) -> bool:
        """Return whether a probe comes from this encoder, with these prefixes."""
        mine = self.probe()
        if len(mine) != len(probe):
            return False
        return sum(a * b for a, b in zip(mine, probe, strict=True)) >= _SAME

    def _encode(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        with self._turn:
            vectors: NDArray[np.float32] = self._model.encode(
                list(texts),
                prompt=prefix,
                batch_size=_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return vectors


class QueryBatcher:
    """Encodes queries that arrive while others are encoded together, which is much faster.

    Args:
        encoder: Its `encode_queries` is called in a worker thread, one batch at a time.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: list[tuple[list[str], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of some queries: `[n, d]`."""
        future: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._encode_waiting())
        return await future

    async def _encode_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            texts = [text for texts, _ in batch for text in texts]
            try:
                vectors = await asyncio.to_thread(self._encoder.encode_queries, texts)
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            start = 0
            for own, future in batch:
                if not future.done():  # its caller may have given up
                    future.set_result(vectors[start : start + len(own)])
                start += len(own)


class Reranker:
    """A cross-encoder, which scores a passage for a query by reading both together.

    Args:
        name: Hub id, or folder.
        device: Device of torch.

    Raises:
        SourceError: It cannot be loaded, or sentence-transformers is not installed.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._model = _load("CrossEncoder", name, device)
        self._turn = threading.Lock()

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a score for each text, higher is better: `[n]`."""
        with self._turn:
            scores = self._model.predict(
                [(query, text) for text in texts], batch_size=_BATCH, show_progress_bar=False
            )
        return [float(score) for score in scores]

    def probe(self) -> float:
        """Return the score of a fixed pair, which changes with the weights."""
        return self.score(_PROBE, ["The Danube flows through Vienna."])[0]


def _load(kind: str, name: str, device: str) -> Any:
    """Load a model of sentence-transformers."""
    try:
        import sentence_transformers
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise SourceError(
            f"a dense source needs sentence-transformers ({error}); install it with: {INSTALL}"
        ) from error
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    place = os.path.expanduser(name)
    is_missing = not Path(place).exists()
    is_path = place.startswith(("/", "."))
    if is_missing and not is_path:
        ask_hub()
    try:
        if is_missing and is_path:
            raise FileNotFoundError("there is no such folder")
        model = getattr(sentence_transformers, kind)(place, device=device)
        _require_words(model.tokenizer)
    except Exception as error:  # whatever is wrong with the files of a model
        what = "encoder" if kind == "SentenceTransformer" else "cross-encoder"
        reason = " ".join(str(error).split())[:300]
        if not isinstance(error, OSError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise SourceError(
            f"{what} {name or repr(name)} cannot be loaded ({reason}); give the folder or the Hub "
            "id of a sentence-transformers model"
        ) from error
    return model


def _require_words(tokenizer: Any) -> None:
    """Check that a tokenizer has words: without its files, transformers makes one without any.

    Raises:
        ValueError: It has none.
    """
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("its tokenizer has no words: tokenizer.json or vocab.txt is missing")


def _family_prefixes(name: str) -> tuple[str, str]:
    base = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return next(((query, passage) for part, query, passage in _FAMILIES if part in base), ("", ""))


def _first(*values: str | None) -> str:
    """Return the first text that is given; sentence-transformers gives "" where it knows none."""
    given, *known = values
    return given if given is not None else next((text for text in known if text), "")
