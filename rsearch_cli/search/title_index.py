"""Finds the passages of a corpus by their title.

A million titles take 12 MB: a sorted array of 64-bit hashes, and the number of the passage of each.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rsearch_cli.search.analyzer import split_words
from rsearch_cli.search.postings import map_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FILES = ("titles.npy", "title-passages.npy")
_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*\Z")


def title_words(title: str) -> list[str]:
    """Return the words of a title without its qualifier, as in `Venus (1929 film)`."""
    return split_words(_QUALIFIER.sub("", title) or title)


class TitleIndex:
    """Passages by title; case, accents, punctuation and a qualifier in brackets are ignored.

    Args:
        hashes: `[n]` hash of each title, in the order of the corpus.
    """

    def __init__(self, hashes: array[int]) -> None:
        import numpy as np

        unsorted = np.frombuffer(hashes, dtype=np.uint64)
        order = np.argsort(unsorted, kind="stable").astype(np.int32)
        self._hashes: NDArray[np.uint64] = unsorted[order]
        self._passages: NDArray[np.int32] = order

    @classmethod
    def of(cls, titles: Iterable[str]) -> Self:
        """Index the titles of all passages, in the order of the corpus."""
        return cls(array("Q", map(hash_title, titles)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map a saved index into memory."""
        index = cls.__new__(cls)
        index._hashes, index._passages = (map_array(folder / name) for name in _FILES)
        return index

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        import numpy as np

        for name, values in zip(_FILES, (self._hashes, self._passages), strict=True):
            np.save(folder / name, values)

    def find(self, name: str) -> list[int]:
        """Return the passages whose title is this name, in the order of the corpus."""
        import numpy as np

        words = title_words(name)
        if not words:
            return []
        key = np.uint64(_hash(words))
        start, end = (np.searchsorted(self._hashes, key, side) for side in ("left", "right"))
        found: list[int] = self._passages[start:end].tolist()
        return found


def hash_title(title: str) -> int:
    """Return the 64-bit hash under which `TitleIndex` finds a title."""
    return _hash(title_words(title))


def _hash(words: list[str]) -> int:
    text = " ".join(words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
