"""Finds the best passages for weighted words without scoring every passage.

words.txt              all words, sorted by their bytes    word-ends.npy    [words]
posting-passages.npy   [z] passages of each word           word-begins.npy  [words + 1], in both
posting-scores.npy     [z] its BM25 scores for them
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDS, WORD_ENDS, BEGINS = "words.txt", "word-ends.npy", "word-begins.npy"
PASSAGES, SCORES = "posting-passages.npy", "posting-scores.npy"

_MEMOISED = 8192
_FIRST = 4096  # passages, mostly of rare words, among which most of the best ones are
_SLACK = 1e-4  # room for the rounding of sums of 32-bit scores, as a share of the largest sum

WeightedWords = tuple[Sequence[str], int]
"""Folded words, of which each counts as often as it is given, and the weight of their sum."""


class Postings:
    """The BM25 score of each word for each passage that contains it.

    A search reads the rarest words first. It stops as soon as no other passage can reach the best
    ones with the words that are left, whose scores are then looked up for the passages found so far
    only (Turtle and Flood, Query evaluation: strategies and optimizations, 1995). The result is the
    same as if every passage were scored.

    Args:
        folder: Where a `PostingsWriter` wrote them; they are mapped into memory.
        count: Number of passages.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._begins: NDArray[np.int64] = map_array(folder / BEGINS)
        self._passages: NDArray[np.int32] = map_array(folder / PASSAGES)
        self._scores: NDArray[np.float32] = map_array(folder / SCORES)
        self._count = count
        self._find_word = lru_cache(_MEMOISED)(_Vocabulary(folder).find)

    def score(
        self, groups: Sequence[WeightedWords], passages: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Score some passages.

        Args:
            groups: Words with their weights.
            passages: `[m]`.

        Returns:
            `[m]`, 0 for a passage that contains none of the words.
        """
        import numpy as np

        total: NDArray[np.float32] = np.zeros(len(passages), dtype=np.float32)
        for words, weight in groups:
            own: NDArray[np.float32] = np.zeros(len(passages), dtype=np.float32)
            for word in self._number(words):
                own += self._look_up(word, passages)
            total += own * weight
        return total

    def find_best(
        self, groups: Sequence[WeightedWords], count: int, allowed: NDArray[np.bool_] | None
    ) -> dict[int, float]:
        """Return the passages with the highest scores above 0, best first, ties in order.

        Args:
            groups: Words with their weights.
            count: Most passages.
            allowed: `[passages]`, True where a passage may be found; None for all.
        """
        import numpy as np

        weights: dict[int, int] = {}
        for words, weight in groups:
            for word in self._number(words):
                weights[word] = weights.get(word, 0) + weight
        rarest_first = sorted(weights, key=self._frequency)
        left = [self._bound(word) * weights[word] for word in rarest_first]
        slack = _SLACK * sum(left)
        # The most that the words from each one on can add to a passage.
        rest = [sum(left[i:]) + slack for i in range(len(left) + 1)]
        found, partial, read = self._collect(rarest_first, weights, rest, count, allowed)
        for i in range(read, len(rarest_first) + 1):
            enough = partial + rest[i] >= _nth_best(partial, count)
            found, partial = found[enough], partial[enough]
            if i < len(rarest_first):
                word = rarest_first[i]
                partial = partial + self._look_up(word, found) * weights[word]
        found.sort()
        scores = self.score(groups, found)
        best = np.argsort(-scores, kind="stable")[:count]
        return {int(found[i]): float(scores[i]) for i in best}

    def _collect(
        self,
        words: Sequence[int],
        weights: Mapping[int, int],
        rest: Sequence[float],
        count: int,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:
        """Collect the passages of words until no other passage can be among the best.

        Returns:
            Passages `[m]`, their scores for the words that were read `[m]`, and how many words
            were read.
        """
        import numpy as np

        partial: NDArray[np.float32] = np.zeros(self._count, dtype=np.float32)
        parts = [np.zeros(0, dtype=self._passages.dtype)]
        first = parts[0]  # of the passages found, to see how good the best ones are
        read = 0
        for read, word in enumerate([*words, None]):
            enough = len(first) >= count and _nth_best(partial[first], count) > rest[read]
            if word is None or enough:
                break
            passages, scores = self._read(word)
            places = passages.astype(np.intp)  # once, or NumPy would convert them twice
            before = partial[places]
            new = passages[before == 0]
            partial[places] = before + scores * weights[word]
            parts.append(new if allowed is None else new[allowed[new]])
            if len(first) < _FIRST:
                first = np.concatenate([first, parts[-1]])[:_FIRST]
        found = np.concatenate(parts)
        return found, partial[found], read

    def _number(self, words: Sequence[str]) -> list[int]:
        """Return the numbers of those words that are in the vocabulary."""
        numbers = map(self._find_word, words)
        return [number for number in numbers if number is not None]

    def _frequency(self, word: int) -> int:
        """Return how many passages contain a word."""
        return int(self._begins[word + 1] - self._begins[word])

    def _bound(self, word: int) -> float:
        """Return a score that a word exceeds for no passage: its inverse document frequency.

        The other factor of BM25 is below 1; see `PostingsWriter`.
        """
        frequency = self._frequency(word)
        return math.log(1 + (self._count - frequency + 0.5) / (frequency + 0.5))

    def _read(self, word: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the passages that contain a word, and its scores for them."""
        place = slice(int(self._begins[word]), int(self._begins[word + 1]))
        return self._passages[place], self._scores[place]

    def _look_up(self, word: int, wanted: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the scores of a word for some passages: `[m]`."""
        import numpy as np

        passages, scores = self._read(word)
        places = np.minimum(np.searchsorted(passages, wanted), len(passages) - 1)
        return np.where(passages[places] == wanted, scores[places], np.float32(0))


class _Vocabulary:
    """The sorted words of an index, searched on disk."""

    def __init__(self, folder: Path) -> None:
        self._ends: NDArray[np.int64] = map_array(folder / WORD_ENDS)
        with (folder / WORDS).open("rb") as file:
            self._words = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def find(self, word: str) -> int | None:
        """Return the number of a word, or None."""
        wanted = word.encode()
        low, high = 0, len(self._ends)
        while low < high:
            middle = (low + high) // 2
            if self._word(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self._ends) and self._word(low) == wanted else None

    def _word(self, number: int) -> bytes:
        start = int(self._ends[number - 1]) if number else 0
        return self._words[start : int(self._ends[number])]


def map_array(path: Path) -> NDArray[Any]:
    """Map an array into memory, as a plain array, because slices of a `memmap` are slow."""
    import numpy as np

    return np.load(path, mmap_mode="r").view(np.ndarray)


def _nth_best(scores: NDArray[np.float32], count: int) -> float:
    """Return the score of rank `count`; 0 if there are fewer."""
    import numpy as np

    return float(np.partition(scores, -count)[-count]) if len(scores) >= count else 0.0
