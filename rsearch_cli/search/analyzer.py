"""Text analysis for BM25: splits text into the words that are indexed and searched.

Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) and Korean are
split into overlapping pairs of letters, as Lucene's CJKAnalyzer does. Traditional and simplified
Chinese characters remain distinct.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

from rsearch_cli.protocol.characters import (
    HAN,
    HANGUL,
    LETTER,
    MARKS,
    UNSPACED,
    is_kept_mark,
)

_ENGLISH = """
    a about after all also although am an and another any are as at be because been before being
    between both but by can could did do does during each for from had has have having he her
    here him his how however i if in into is it its itself many me more most my no nor not of on
    once only or other our out over own same several she since so some such than that the their
    them then there these they this those though through to too under until up upon us very was
    we were what when where which while who whom whose why will with would you your
"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""English words that carry no subject, question words included."""

_PLAIN_WORD = re.compile(r"[^\W_]+")
_WORD = re.compile(rf"(?:[^\W_]+|[{MARKS}]+)+")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
# Letters that NFKD does not decompose, although users type them without the stroke.
_STROKES = {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "\u0131": "i"}
_STROKED = re.compile(f"[{''.join(_STROKES)}]")
# Normalising a run of marks takes quadratic time, so long runs are normalised in pieces.
_FOREIGN = re.compile(r"[^\x00-\x7f]{1,1024}")
_MEMOISED = 4096
_PAIRED = re.compile(f"[{UNSPACED}{HANGUL}]+")
_PIECE = re.compile(f"[{UNSPACED}{HANGUL}]+|[^{UNSPACED}{HANGUL}]+")
_SPECIAL = re.compile(f"[{MARKS}{UNSPACED}{HANGUL}]")
_SYLLABLE = re.compile(f"[{HAN}{HANGUL}]")


def fold(text: str) -> str:
    """Lower-case a text and remove accents, ligatures, width variants and possessive endings."""
    plain = _FOREIGN.sub(_remove_accents, text).casefold()
    return _POSSESSIVE.sub("", _STROKED.sub(lambda letter: _STROKES[letter[0]], plain))


def _remove_accents(run: re.Match[str]) -> str:
    return _compose_plain(run[0])


@lru_cache(maxsize=_MEMOISED)
def _compose_plain(run: str) -> str:
    decomposed = unicodedata.normalize("NFKD", run)
    kept = "".join(c for c in decomposed if not unicodedata.combining(c) or is_kept_mark(c))
    return unicodedata.normalize("NFC", kept)  # Korean syllables and voiced kana


def split_words(text: str) -> list[str]:
    """Return all words of a text, folded and in order, stop words included."""
    return _split(text, singles=False)


def split_indexed(text: str) -> list[str]:
    """Return the words under which a text is indexed: those of `split_words`, and single syllables.

    Without these, a query of one Chinese character or one Korean syllable would find nothing.
    """
    return _split(text, singles=True)


def split_query(text: str) -> list[str]:
    """Return the words of a query without stop words.

    A query of nothing but stop words keeps them: The Who is a band.
    """
    words = split_words(text)
    return [w for w in words if w not in STOP_WORDS] or words


def _split(text: str, *, singles: bool) -> list[str]:
    folded = fold(text)
    if not _SPECIAL.search(folded):
        return _PLAIN_WORD.findall(folded)
    words: list[str] = _WORD.findall(folded)
    return [
        part
        for word in words
        for part in (_split_pairs(word, singles=singles) if _PAIRED.search(word) else [word])
    ]


def _split_pairs(word: str, *, singles: bool) -> list[str]:
    """Split the runs of unspaced letters in a word into overlapping pairs."""
    parts = []
    for piece in _PIECE.findall(word):
        letters = LETTER.findall(piece) if _PAIRED.match(piece) else [piece]
        pairs = [first + second for first, second in pairwise(letters)]
        parts += pairs or letters
        if singles and pairs:
            parts += [letter for letter in letters if _SYLLABLE.match(letter)]
    return parts
