"""Folders with the passages of a corpus and their BM25 index, read from disk on demand.

passages.jsonl   one passage per line      offsets.npy   [n + 1] start of each line
sources.json     source name of each       index.json    key
titles.npy ...   see TitleIndex            words.txt ...   see Postings
checksums.json   written last: without it, no index
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, overload

from rsearch_cli.errors import SourceError
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.analyzer import split_indexed
from rsearch_cli.search.postings import map_array
from rsearch_cli.search.postings_writer import PostingsWriter
from rsearch_cli.search.title_index import TitleIndex, title_keys
from rsearch_cli.types import Passage

logger = logging.getLogger(__name__)

TITLE_WEIGHT = 2
"""Weight of a title: it names the subject, which is what queries are about."""

_STAGING = ".building-"
_LOCKS = f".{'[0-9a-f]' * 32}-*.lock"  # the key of a corpus begins so
_SILENT_SECONDS = 2.0
_CHECKSUMS = "checksums.json"
PASSAGES, _OFFSETS, _SOURCES, _ABOUT = (
    "passages.jsonl",
    "offsets.npy",
    "sources.json",
    "index.json",
)


class StoredPassages(Sequence[Passage]):
    """The passages of a prepared corpus, read from disk one by one.

    Args:
        folder: An intact folder, which must not change while this is in use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets = map_array(folder / _OFFSETS)
        with (folder / PASSAGES).open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read_sources(self) -> list[tuple[str, int]]:
        """Return the source names in the order of the corpus, each with its number of passages.

        "" is the name for passages that belong to every source.
        """
        named = json.loads((self._folder / _SOURCES).read_text(encoding="utf-8"))
        return [(name, count) for name, count in named]

    def titles(self) -> TitleIndex:
        """Return the index of the titles."""
        return TitleIndex.load(self._folder)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> list[Passage]: ...
    def __getitem__(self, index: int | slice) -> Passage | list[Passage]:
        """Return the passage at a non-negative index, or the passages of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = self._offsets[index], self._offsets[index + 1]
        try:
            return Passage(**json.loads(self._lines[int(start) : int(end)]))
        except (ValueError, TypeError, RecursionError) as error:
            raise SourceError(
                f"passage {index} of the prepared corpus {self._folder} cannot be read ({error}); "
                "prepare it again with rsearch index"
            ) from error


def write_postings(passages: Iterable[Passage], folder: Path) -> None:
    """Write the BM25 scores of passages into an existing folder, from where `Postings` reads them.

    Raises:
        DataEmpty: No passage contains a word.
        OSError: Something cannot be written.
    """
    writer = PostingsWriter(folder)
    for passage in passages:
        writer.add(split_indexed(passage.title) * TITLE_WEIGHT + split_indexed(passage.text))
    writer.finish()


def store_passages(
    passages: Iterable[Passage], folder: Path, on_read: Callable[[int], None]
) -> Iterator[Passage]:
    """Write passages into a folder and yield them again.

    Args:
        passages: Read once.
        folder: Exists.
        on_read: Called after every passage with the number of passages so far.
    """
    import numpy as np

    offsets = array("q", [0])
    titles, titled = array("Q"), array("i")
    runs: list[list[Any]] = []
    with (folder / PASSAGES).open("wb") as file:
        for passage in passages:
            fields = {"id": passage.id, "title": passage.title, "text": passage.text}
            fields |= {"source": passage.source} if passage.source else {}
            line = dump_json(fields, ensure_ascii=True).encode("ascii")
            file.write(line + b"\n")
            offsets.append(offsets[-1] + len(line) + 1)
            keys = title_keys(passage.title)
            titles.extend(keys)
            titled.extend([len(offsets) - 2] * len(keys))
            if runs and runs[-1][0] == passage.source:
                runs[-1][1] += 1
            else:
                runs.append([passage.source, 1])
            on_read(len(offsets) - 1)
            yield passage
    TitleIndex(titles, titled).save(folder)
    np.save(folder / _OFFSETS, np.frombuffer(offsets, dtype=np.int64))
    (folder / _SOURCES).write_text(dump_json(runs), encoding="utf-8")


def write_key(folder: Path, key: str) -> None:
    """Write the key of the index in a folder."""
    (folder / _ABOUT).write_text(dump_json({"key": key}), encoding="utf-8")


def read_key(folder: Path) -> str:
    """Return the key of the index in a folder."""
    key: str = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["key"]
    return key


@contextmanager
def building_alone(folder: Path) -> Iterator[None]:
    """Keep other processes from building the same index meanwhile.

    What a killed process has left of this index is removed, and also what is left of others in the
    same folder.

    Raises:
        OSError: The lock cannot be written.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    path = _lock_of(folder)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_SILENT_SECONDS)
    except Timeout:
        logger.info(f"waiting for another process that builds {folder}")
        lock.acquire()
    try:
        shutil.rmtree(_staging_of(folder), ignore_errors=True)
        for left in folder.parent.glob(_LOCKS):
            other = folder.with_name(left.name.removeprefix(".").removesuffix(".lock"))
            if left != path:
                with suppress(OSError, Timeout), FileLock(left, timeout=0):
                    shutil.rmtree(_staging_of(other), ignore_errors=True)
                    left.unlink()
        yield
    finally:
        # A process that waits for the file notices that it is gone, and takes a new one.
        with suppress(OSError):
            path.unlink()
        lock.release()


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` at the end, so a kill leaves no partial one.

    Only one process may do so at a time; see `building_alone`.

    Raises:
        OSError: Something cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    state = _staging_of(folder)
    state.mkdir()
    try:
        yield state
        checksums = dump_json(_checksum(state))
        (state / _CHECKSUMS).write_text(checksums, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        state.rename(folder)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def is_whole(folder: Path) -> bool | None:
    """Return whether an index is intact, byte for byte; None if there is no folder."""
    try:
        expected = json.loads((folder / _CHECKSUMS).read_text(encoding="utf-8"))
        return bool(expected == _checksum(folder))
    except FileNotFoundError:
        return False if folder.exists() else None
    except (OSError, ValueError):
        return False


def is_free(folder: Path) -> bool:
    """Return whether an index may be written here: nothing or an index is there."""
    if not folder.exists():
        return True
    return folder.is_dir() and ((folder / _CHECKSUMS).is_file() or not any(folder.iterdir()))


def _checksum(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != _CHECKSUMS:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _staging_of(folder: Path) -> Path:
    return folder.with_name(_STAGING + folder.name)
