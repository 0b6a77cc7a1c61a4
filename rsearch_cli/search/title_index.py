"""Finds the passages of a corpus by their title.

A million titles take 12 MB: a sorted array of 64-bit hashes and the number of the passage of each.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rsearch_cli.search.analyzer import split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES = ("titles.npy", "title-passages.npy")
_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*\Z")


def strip_qualifier(title: str) -> str:
    """Return a title without the qualifier that tells namesakes apart: `Venus (1929 film)`."""
    return _QUALIFIER.sub("", title) or title


class TitleIndex:
    """Passage numbers by title; case, accents and a qualifier in brackets do not matter.

    Args:
        hashes: `[n]` sorted hashes of the titles.
        passages: `[n]` the passage of each.
    """

    def __init__(self, hashes: NDArray[np.uint64], passages: NDArray[np.int32]) -> None:
        self._hashes = hashes
        self._passages = passages

    @classmethod
    def build(cls, titles: Iterable[str]) -> Self:
        """Index the titles of a corpus, in the order of its passages."""
        import numpy as np

        hashes = np.frombuffer(array("Q", map(_hash, titles)), dtype=np.uint64)
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        return cls(hashes[order], order)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map an index that `save` wrote into memory."""
        import numpy as np

        return cls(*(np.load(folder / name, mmap_mode="r") for name in FILES))

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        import numpy as np

        for name, values in zip(FILES, (self._hashes, self._passages), strict=True):
            np.save(folder / name, values)

    def find(self, name: str) -> list[int]:
        """Return the passages with this title, in the order of the corpus."""
        import numpy as np

        key = np.uint64(_hash(name))
        first = np.searchsorted(self._hashes, key, side="left")
        end = np.searchsorted(self._hashes, key, side="right")
        found: list[int] = self._passages[first:end].tolist()
        return found


def _hash(title: str) -> int:
    words = " ".join(split_words(strip_qualifier(title)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big")
