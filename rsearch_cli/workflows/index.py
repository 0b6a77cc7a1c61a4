"""Build the BM25 index of a corpus ahead of the runs that search it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from rsearch_cli.errors import DataError
from rsearch_cli.search.bm25 import corpus_key, indexes_folder, prepare_corpus
from rsearch_cli.search.index_folder import StoredPassages, is_free, is_whole

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 2.0


@dataclass(frozen=True, slots=True)
class IndexReport:
    """A BM25 index on disk.

    Attributes:
        corpus: The corpus file.
        index: Folder of the index.
        key: Identifies the corpus's content and the index format.
        passages: Number of passages.
        bytes: Size of the index.
        was_ready: Whether the index existed already.
        seconds: Time taken.
    """

    corpus: str
    index: str
    key: str
    passages: int
    bytes: int
    was_ready: bool
    seconds: float


def build_index(corpus: Path, output: Path | None = None) -> IndexReport:
    """Index a corpus file, unless its index is in the cache already.

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
    was_ready = output is None and bool(is_whole(folder))
    if not was_ready:
        try:
            prepare_corpus(corpus, folder, _ProgressLog())
        except OSError as error:
            raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    return IndexReport(
        corpus=str(corpus),
        index=str(folder),
        key=key,
        passages=len(StoredPassages(folder)),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        was_ready=was_ready,
        seconds=round(time.perf_counter() - started, 1),
    )


class _ProgressLog:
    """Logs the number of passages read, at most once every few seconds."""

    def __init__(self) -> None:
        self._logged = time.monotonic()

    def __call__(self, count: int) -> None:
        if time.monotonic() - self._logged >= _SECONDS_BETWEEN_LINES:
            self._logged = time.monotonic()
            logger.info("%s passages read", f"{count:,}")
