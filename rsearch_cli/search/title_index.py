"""Finds the passages of a corpus by their title, and the titles that occur in a text.

A million titles take 12 to 15 MB: a sorted array of 64-bit hashes, and the passage of each.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rsearch_cli.search.analyzer import STOP_WORDS, split_words
from rsearch_cli.search.postings import map_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FILES = ("titles.npy", "title-passages.npy")
_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*\Z")
_PUNCTUATION = "\"'([{\u2018\u201c\u00ab"
_LONGEST = 12  # words of a title that is looked for in a text
_READ = 10_000  # characters of a text in which titles are looked for: milliseconds


def bare_title(title: str) -> str:
    """Return a title without its qualifier: `Venus` for `Venus (1929 film)`."""
    return _QUALIFIER.sub("", title) or title


def title_words(title: str) -> list[str]:
    """Return the words of a title without its qualifier."""
    return split_words(bare_title(title))


def title_keys(title: str) -> list[int]:
    """Return the hashes under which `TitleIndex` finds a title: with and without its qualifier."""
    return list({_hash(title_words(title)): None, _hash(split_words(title)): None})


class TitleIndex:
    """Passages by title; case, accents, punctuation and a qualifier in brackets are ignored.

    Args:
        hashes: `[n]` hashes of titles.
        passages: `[n]` number of the passage of each.
    """

    def __init__(self, hashes: array[int], passages: array[int]) -> None:
        import numpy as np

        unsorted = np.frombuffer(hashes, dtype=np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._hashes: NDArray[np.uint64] = unsorted[order]
        self._passages: NDArray[np.int32] = np.frombuffer(passages, dtype=np.int32)[order]

    @classmethod
    def of(cls, titles: Iterable[str]) -> Self:
        """Index the titles of all passages, in the order of the corpus."""
        hashes, passages = array("Q"), array("i")
        for number, title in enumerate(titles):
            keys = title_keys(title)
            hashes.extend(keys)
            passages.extend([number] * len(keys))
        return cls(hashes, passages)

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

    def find(self, text: str) -> list[list[int]]:
        """Return the passages whose title occurs in the beginning of a text, a list per occurrence.

        They are in the order of the text, but titles of one word come last, because most of them
        say little: American, London. They have to be capitalised in the text. Of titles that
        overlap, the longest counts: in "King Victor Emmanuel III of Italy", Italy does not.
        """
        import numpy as np

        words, named = _read_words(text)
        spans = [
            (start, end)
            for start in range(len(words))
            for end in range(min(len(words), start + _LONGEST), start, -1)
            if _may_be_title(words[start:end], named[start:end])
        ]
        keys = np.array([_hash(words[start:end]) for start, end in spans], dtype=np.uint64)
        low: NDArray[np.intp] = np.searchsorted(self._hashes, keys, "left")
        high: NDArray[np.intp] = np.searchsorted(self._hashes, keys, "right")
        found: list[tuple[bool, list[int]]] = []
        read = 0
        for i in np.flatnonzero(low < high).tolist():
            start, end = spans[i]
            if start >= read:
                found.append((end - start == 1, self._passages[low[i] : high[i]].tolist()))
                read = end
        return [passages for _, passages in sorted(found, key=lambda entry: entry[0])]


def _read_words(text: str) -> tuple[list[str], list[bool | None]]:
    """Return the words of a text, and whether a name may start with each: None if nobody knows.

    Names are told by capitals; in a text without any but its first letter, they are not told.
    """
    words: list[str] = []
    named: list[bool | None] = []
    for part in text[:_READ].split():
        split = split_words(part)
        words += split
        letters = part.lstrip(_PUNCTUATION)
        named += [not letters[:1].islower()] * len(split)
    if not any(named[1:]):
        named = [start or None for start in named]
    return words, named


def _may_be_title(words: list[str], named: list[bool | None]) -> bool:
    if len(words) == 1:
        return bool(named[0]) and words[0] not in STOP_WORDS and not words[0].isdecimal()
    return named[0] is not False and (all(named) or not STOP_WORDS.issuperset(words))


def _hash(words: list[str]) -> int:
    text = " ".join(words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
