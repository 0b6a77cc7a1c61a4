"""Words: how text becomes the units that are indexed, searched and compared.

Place in the path: below the BM25 index and the query expansion, so that both mean the same by «the
same word». On failure: none; text without a word gives an empty list.
"""

from __future__ import annotations

import re
import unicodedata

_ENGLISH = """
    a about after all also although am an and another any are as at be because been before being
    between both but by can could did do does during each for from had has have having he her
    here him his how however i if in into is it its itself many me more most my no nor not of on
    once only or other our out over own same several she since so some such than that the their
    them then there these they this those though through to too under until up upon us very was
    we were what when where which while who whom whose why will with would you your
"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""English words that say nothing about a passage's subject, the question words among them."""

_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
# Letters that NFKD leaves whole, although people type them without the stroke.
_STROKES = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "\u0131": "i"}
)


def fold(text: str) -> str:
    """Lower the case and take accents, ligatures and possessive endings away."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in decomposed if not unicodedata.combining(c))
    return _POSSESSIVE.sub("", text.casefold().translate(_STROKES))


def split_words(text: str) -> list[str]:
    """All words of a text, folded, in order, stop-words included."""
    return _WORD.findall(fold(text))


def split_query(text: str) -> list[str]:
    """The words of a query that are worth searching for.

    A query made of stop-words alone keeps them: «The Who» is a band.
    """
    words = split_words(text)
    return [w for w in words if w not in STOP_WORDS] or words
