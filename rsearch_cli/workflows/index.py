"""Build the indexes of a corpus ahead of the runs that search it, and check what it covers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from rsearch_cli.errors import DataError
from rsearch_cli.questions.fields import parse_question
from rsearch_cli.questions.rows import read_rows
from rsearch_cli.search.bm25 import (
    corpus_key,
    indexes_folder,
    open_corpus,
    prepare_corpus,
)
from rsearch_cli.search.coverage import Coverage, measure_coverage
from rsearch_cli.search.dense import DenseOptions, open_corpus_vectors, open_whole, vectors_folder
from rsearch_cli.search.index_folder import StoredPassages, is_free
from rsearch_cli.search.sources import SearchSource

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 2.0


@dataclass(frozen=True, slots=True)
class IndexReport:
    """An index on disk.

    Attributes:
        corpus: The corpus file.
        index: Folder of the index.
        key: Identifies the corpus's content and the index format.
        passages: Number of passages.
        bytes: Size of the index.
        was_ready: Whether the index existed already.
        seconds: Time taken.
        encoder: Encoder of a dense index; None for BM25.
    """

    corpus: str
    index: str
    key: str
    passages: int
    bytes: int
    was_ready: bool
    seconds: float
    encoder: str | None = None


def build_index(corpus: Path, output: Path | None = None) -> IndexReport:
    """Build the BM25 index of a corpus file, unless it is in the cache already.

    Args:
        corpus: File of passages.
        output: Folder for the index, which is then a corpus of its own; None puts it into the
            cache folder, where every recipe that names the same corpus finds it.

    Raises:
        DataError: The corpus cannot be used, or the folder is taken or cannot be written.
    """
    started = time.perf_counter()
    if corpus.is_dir():
        raise DataError(f"{corpus} is a folder; give the corpus file")
    key = corpus_key(corpus)
    folder = indexes_folder() / key if output is None else output
    if output is not None and not is_free(output):
        raise DataError(f"{output} exists and is not an index; choose a new folder")
    try:
        built = prepare_corpus(corpus, folder, _ProgressLog("read"))
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    passages = len(StoredPassages(folder))
    seconds = time.perf_counter() - started
    return _report(corpus, folder, key, passages, was_ready=not built, seconds=seconds)


def build_dense_index(
    corpus: Path, encoder: str, device: str = "cpu", passage_prefix: str | None = None
) -> IndexReport:
    """Build the dense index of a corpus in the cache folder, unless it is there already.

    A build that was interrupted continues where it stopped.

    Args:
        corpus: File of passages, or a folder made by `build_index`.
        encoder: Hub id or folder of a sentence-transformers encoder.
        device: Device of the encoder.
        passage_prefix: Text before every passage; None takes what the encoder expects.

    Raises:
        DataError: The corpus cannot be used.
        SourceError: The encoder cannot be loaded, or the cache folder cannot be written.
    """
    from rsearch_cli.search.encoder import Encoder

    started = time.perf_counter()
    options = DenseOptions(encoder=encoder, passage_prefix=passage_prefix)
    model = Encoder(encoder, passage_prefix=passage_prefix, device=device)
    index = open_corpus(corpus, indexes_folder())
    progress = _ProgressLog("encoded", len(index.passages))
    was_ready = open_corpus_vectors(index, options, model, indexes_folder(), progress)[1]
    folder = vectors_folder(indexes_folder(), index, options)
    return _report(
        corpus,
        folder,
        index.key,
        len(index.passages),
        was_ready=was_ready,
        seconds=time.perf_counter() - started,
        encoder=encoder,
    )


def check_coverage(corpus: Path, questions: Path) -> Coverage:
    """Measure how much of some questions' evidence is in a corpus.

    Args:
        corpus: File of passages, or a folder made by `build_index`.
        questions: File of questions.

    Raises:
        DataError: One of the files cannot be used.
    """
    asked = [parse_question(row) for row in read_rows(questions)]
    index = open_corpus(corpus, indexes_folder())
    return measure_coverage(index, asked, _ProgressLog("searched", len(index.passages)))


def open_served(corpus: Path, encoder: str | None = None, device: str = "cpu") -> SearchSource:
    """Open a corpus as a search source for other programs.

    Args:
        corpus: File of passages, or a folder made by `build_index`.
        encoder: Encoder of its dense index; None for BM25.
        device: Device of the encoder.

    Raises:
        DataError: The corpus or its index cannot be used.
        SourceError: The encoder cannot be loaded, or its index is not built.
    """
    options = None if encoder is None else DenseOptions(encoder=encoder, device=device)
    return open_whole(corpus, options, indexes_folder())


def _report(
    corpus: Path,
    folder: Path,
    key: str,
    passages: int,
    *,
    was_ready: bool,
    seconds: float,
    encoder: str | None = None,
) -> IndexReport:
    return IndexReport(
        corpus=str(corpus),
        index=str(folder),
        key=key,
        passages=passages,
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        was_ready=was_ready,
        seconds=round(seconds, 1),
        encoder=encoder,
    )


class _ProgressLog:
    """Logs a number of passages, at most once every few seconds.

    Args:
        done: What is done with them, such as `read`.
        total: How many there are, if known.
    """

    def __init__(self, done: str, total: int | None = None) -> None:
        self._done = done
        self._of = "" if total is None else f" of {total:,}"
        self._logged = time.monotonic()

    def __call__(self, count: int) -> None:
        if time.monotonic() - self._logged >= _SECONDS_BETWEEN_LINES:
            self._logged = time.monotonic()
            logger.info(f"{count:,}{self._of} passages {self._done}")
