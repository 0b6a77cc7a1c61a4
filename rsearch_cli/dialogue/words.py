"""Words of a text by kind: content words, names and numbers, compared across texts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from rsearch_cli.search.analyzer import STOP_WORDS, split_words

# Words that open a sentence and are not names, beside the stop words.
_OPENERS = frozenset(
    """
    according additionally based finally first furthermore further given hence historically
    moreover name nevertheless notably overall please second similarly specifically tell thus
    today together yes
    """.split()
)
_TOKEN = re.compile(r"[^\s\"“”„«»()\[\]{},;:!?/]+")
_DIGIT = re.compile(r"\d")
_LEAST_STEM = 4


def content_words(text: str) -> set[str]:
    """Return the folded words of a text without stop words."""
    return {word for word in split_words(text) if word not in STOP_WORDS}


def numbers(text: str) -> set[str]:
    """Return the folded words of a text that contain a digit."""
    return {word for word in split_words(text) if _DIGIT.search(word)}


def names(sentence: str) -> set[str]:
    """Return the folded words of a sentence with a capital, without stop words and its first."""
    tokens = _TOKEN.findall(sentence)[1:]
    return {word for token in tokens if token[0].isupper() for word in content_words(token)}


def opening(sentence: str) -> set[str]:
    """Return the folded first word of a sentence if it has a capital and doesn't commonly open one.

    Scripts without capitals have none; there the whole sentence may be one word.
    """
    tokens = [token for token in _TOKEN.findall(sentence)[:1] if token[0].isupper()]
    return {word for token in tokens for word in content_words(token)} - _OPENERS


def missing(words: Iterable[str], there: Collection[str]) -> list[str]:
    """Return the words that do not occur exactly, sorted."""
    return sorted(set(words).difference(there))


def share(words: Collection[str], there: Collection[str]) -> float:
    """Return the share of words that occur, in any form with the same stem; 1 without words."""
    if not words:
        return 1.0
    alike: dict[str, list[str]] = {}
    for word in there:
        alike.setdefault(word[:_LEAST_STEM], []).append(word)
    found = [w for w in words if any(same_stem(w, o) for o in alike.get(w[:_LEAST_STEM], ()))]
    return len(found) / len(words)


def same_stem(one: str, other: str) -> bool:
    """Whether two words differ in their ending only, as `founded` and `founder` do."""
    if one == other or _DIGIT.search(one) or _DIGIT.search(other):
        return one == other
    shorter, longer = sorted((one, other), key=len)
    common = next(
        (n for n, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter)
    )
    return common >= _LEAST_STEM and 3 * common >= 2 * len(longer)
