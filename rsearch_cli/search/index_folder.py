"""Folders with the passages of a corpus and their BM25 index, read from disk on demand.

passages.jsonl   one passage per line      offsets.npy   [n + 1] start of each line
sources.json     source name of each       index.json    key
*.npy, *.json    the index of bm25s        checksums.json  written last: without it, no index
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

from rsearch_cli.compat.bm25s import import_bm25s, new_scorer
from rsearch_cli.errors import DataEmpty, SourceError
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.analyzer import split_indexed
from rsearch_cli.search.title_index import TitleIndex, hash_title
from rsearch_cli.types import Passage

TITLE_WEIGHT = 2
"""Weight of a title: it names the subject, which is what queries are about."""

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

    Attributes:
        sources: `[n]` source name of each passage, "" for those that belong to every source.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self._folder = folder
        self._offsets = np.load(folder / _OFFSETS, mmap_mode="r")
        with (folder / PASSAGES).open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        named = json.loads((folder / _SOURCES).read_text(encoding="utf-8"))
        self.sources: Sequence[str] = [name for name, count in named for _ in range(count)]

    def titles(self) -> TitleIndex:
        """Return the index of the titles; folders of earlier versions have none, so it is built."""
        return TitleIndex.load(self._folder) or TitleIndex.of(p.title for p in self)

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


class WordIds(Sequence[list[int]]):
    """The words of many passages as numbers in one flat array, 4 bytes per word.

    Attributes:
        vocabulary: Number of each word.
    """

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        self._ids = array("i")
        self._ends = array("q", [0])

    def add(self, words: Iterable[str]) -> None:
        """Append the words of the next passage."""
        known = self.vocabulary
        self._ids.extend([known.setdefault(word, len(known)) for word in words])
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        """Return the words of the passage at a non-negative index, or those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._ids[self._ends[index] : self._ends[index + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return (self[i] for i in range(len(self)))


def build_scorer(passages: Iterable[Passage]) -> Any:
    """Build the `bm25s.BM25` over passages, with only one of them in memory at a time.

    Raises:
        DataEmpty: No passage contains a word.
    """
    words = WordIds()
    for passage in passages:
        words.add(split_indexed(passage.title) * TITLE_WEIGHT + split_indexed(passage.text))
    if not words.vocabulary:
        raise DataEmpty(f"none of the {len(words)} passages of the corpus contains a word")
    numbered = import_bm25s().tokenization.Tokenized(ids=words, vocab=words.vocabulary)
    scorer = new_scorer()
    scorer.index(numbered, create_empty_token=False, show_progress=False)
    return scorer


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
    titles = array("Q")
    runs: list[list[Any]] = []
    with (folder / PASSAGES).open("wb") as file:
        for passage in passages:
            fields = {"id": passage.id, "title": passage.title, "text": passage.text}
            fields |= {"source": passage.source} if passage.source else {}
            line = dump_json(fields, ensure_ascii=True).encode("ascii")
            file.write(line + b"\n")
            offsets.append(offsets[-1] + len(line) + 1)
            titles.append(hash_title(passage.title))
            if runs and runs[-1][0] == passage.source:
                runs[-1][1] += 1
            else:
                runs.append([passage.source, 1])
            on_read(len(offsets) - 1)
            yield passage
    TitleIndex(titles).save(folder)
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
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` at the end, so a kill leaves no partial one.

    Raises:
        OSError: Something cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        state = Path(temporary) / "index"
        state.mkdir()
        yield state
        checksums = dump_json(_checksum(state))
        (state / _CHECKSUMS).write_text(checksums, encoding="utf-8")
        # Only a damaged index can be here, or the same one of another process.
        shutil.rmtree(folder, ignore_errors=True)
        state.rename(folder)


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
