"""Builds the BM25 scores of a corpus in its folder, as `Postings` reads them.

Memory holds the vocabulary, two numbers a passage and one batch of passages; the rest is on disk.
"""

from __future__ import annotations

import math
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rsearch_cli.errors import DataEmpty
from rsearch_cli.search.postings import BEGINS, PASSAGES, SCORES, WORD_ENDS, WORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 2_000_000  # words; sorting them takes about 100 MB
_K1, _B = 1.5, 0.75


class PostingsWriter:
    """Counts the words of passages, and then writes the score of each word for each passage.

    The scores are those of Lucene's BM25 with k1 = 1.5 and b = 0.75, without its rounding of
    lengths (Kamphuis et al., Which BM25 do you mean?, ECIR 2020):

        log(1 + (N - n + 0.5) / (n + 0.5)) * t / (k1 * (1 - b + b * length / mean length) + t)

    for a word that occurs t times in the passage and in n of N passages.

    Args:
        folder: Where to write; exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}
        self._lengths = array("i")
        self._words = array("i")
        self._counted = 0  # passages whose words are in the file of counts
        # Has no name, so nothing is left of it after a kill.
        self._counts: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._batches: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, words: Sequence[str]) -> None:
        """Add the words of the next passage."""
        numbers = self._numbers
        self._words.extend([numbers.setdefault(word, len(numbers)) for word in words])
        self._lengths.append(len(words))
        if len(self._words) >= _BATCH:
            self._count_batch()

    def finish(self) -> None:
        """Write the files.

        Raises:
            DataEmpty: No passage contains a word.
            OSError: Something cannot be written.
        """
        import numpy as np

        if not self._numbers:
            raise DataEmpty(f"none of the {len(self)} passages of the corpus contains a word")
        self._count_batch()
        frequencies: NDArray[np.int64] = np.zeros(len(self._numbers), dtype=np.int64)
        for words, _, _ in self._read_batches():
            frequencies += np.bincount(words, minlength=len(frequencies))
        places = self._write_words()
        begins: NDArray[np.int64] = np.zeros(len(frequencies) + 1, dtype=np.int64)
        begins[places + 1] = frequencies
        np.cumsum(begins, out=begins)
        np.save(self._folder / BEGINS, begins)
        self._write_scores(begins[places], _rarity(frequencies, len(self)), int(begins[-1]))
        self._counts.close()

    def _count_batch(self) -> None:
        """Count how often each word occurs in each passage since the last batch."""
        import numpy as np

        lengths = np.frombuffer(self._lengths, np.int32)[self._counted :]
        numbers: NDArray[np.int64] = np.arange(self._counted, len(self), dtype=np.int64)
        words = np.frombuffer(self._words, np.int32).astype(np.int64)
        pairs, counts = np.unique(words << 32 | np.repeat(numbers, lengths), return_counts=True)
        for column in (pairs >> 32, pairs & 0xFFFFFFFF, counts):
            self._counts.write(column.astype(np.int32).data)
        self._batches.append(len(pairs))
        self._counted, self._words = len(self), array("i")

    def _read_batches(self) -> Iterator[tuple[NDArray[np.int32], ...]]:
        """Yield words, passages and counts of every batch, by word and then by passage."""
        import numpy as np

        self._counts.seek(0)
        for size in self._batches:
            columns = np.frombuffer(self._counts.read(3 * 4 * size), np.int32).reshape(3, size)
            yield tuple(columns)

    def _write_words(self) -> NDArray[np.int64]:
        """Write the sorted words, and return the place of each: `[words]`, by its number."""
        import numpy as np

        words = sorted(self._numbers)  # by code points, which is the order of bytes in UTF-8
        numbers = np.fromiter((self._numbers[word] for word in words), np.int64, len(words))
        self._numbers.clear()
        lengths = np.fromiter((len(word.encode()) for word in words), np.int64, len(words))
        np.save(self._folder / WORD_ENDS, np.cumsum(lengths))
        (self._folder / WORDS).write_bytes("".join(words).encode())
        places: NDArray[np.int64] = np.empty(len(words), dtype=np.int64)
        places[numbers] = np.arange(len(words))
        return places

    def _write_scores(
        self, heads: NDArray[np.int64], rarity: NDArray[np.float32], size: int
    ) -> None:
        """Write passages and scores in the order of the words.

        Args:
            heads: `[words]`, where the next passage of each word goes.
            rarity: `[words]` inverse document frequencies.
            size: Number of scores.
        """
        import numpy as np

        lengths = np.frombuffer(self._lengths, np.int32)
        norms = _K1 * ((1 - _B) + _B * lengths / (int(lengths.sum(dtype=np.int64)) / len(self)))
        passages_out = self._create(PASSAGES, np.int32, size)
        scores_out = self._create(SCORES, np.float32, size)
        for words, passages, counts in self._read_batches():
            starts = np.flatnonzero(np.diff(words, prepend=-1))
            runs = np.diff(starts, append=len(words))
            places = np.repeat(heads[words[starts]] - starts, runs) + np.arange(len(words))
            heads[words[starts]] += runs
            passages_out[places] = passages
            scores_out[places] = rarity[words] * (counts / (norms[passages] + counts))
        passages_out.flush(), scores_out.flush()

    def _create(self, name: str, kind: Any, size: int) -> Any:
        """Create an array in a file that is mapped into memory."""
        import numpy as np

        path = self._folder / name
        return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(size,))


def _rarity(frequencies: NDArray[np.int64], passages: int) -> NDArray[np.float32]:
    """Return the inverse document frequency of each word: `[words]`."""
    import numpy as np

    known, which = np.unique(frequencies, return_inverse=True)
    values = [math.log(1 + (passages - n + 0.5) / (n + 0.5)) for n in known.tolist()]
    rarity: NDArray[np.float32] = np.array(values, dtype=np.float32)[which]
    return rarity
