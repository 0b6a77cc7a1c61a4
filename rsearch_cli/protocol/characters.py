"""Text normalisation: foreign text as one plain line, and scripts without spaces between words."""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters that are not white space
    "\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069"  # zero width, byte order, direction
    "\ud800-\udfff]"  # lone surrogates, which no tokenizer can encode
)
"""Invisible characters, which are dropped."""

HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7af"
_KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31f0-\u31ff"
# With their vowel signs, without their digits and punctuation.
_THAI_AND_LAO = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecf\u0edc-\u0edf"
_BURMESE_AND_KHMER = "\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
_SOUTH_EAST = _THAI_AND_LAO + _BURMESE_AND_KHMER
UNSPACED = HAN + _KANA + _SOUTH_EAST
"""Letters of the scripts without spaces between words, as ranges of a character class."""

# Marks that belong to the letter before: vowel signs, tone marks, and the voicing of kana.
MARKS = "".join(
    chr(code)
    for code in (*range(0x0900, 0x1A80), 0x3099, 0x309A)
    if unicodedata.category(chr(code)).startswith("M")
)
"""Marks that Python's `\\w` does not match, as characters of a class."""
_KEPT_MARKS = frozenset(MARKS)
LETTER = re.compile(rf"[^\s{MARKS}][{MARKS}]*|[{MARKS}]+")
"""A letter with the marks that belong to it."""

# Runs of letters without spaces, and how many of these letters count as one word.
_LETTERS_A_WORD = ((re.compile(f"[{HAN}{_KANA}]+"), 3), (re.compile(f"[{_SOUTH_EAST}]+"), 6))

# NFC sorts combining marks in quadratic time, so runs are normalised in pieces of this length. No
# composition crosses an ASCII character, and real runs are far shorter.
_COMPOSABLE = re.compile(r"[!-~]?[^\x00-\x7f]{1,256}")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]{0,3}(?= )|[。！？]")


def flatten(text: str) -> str:
    """Put text on one line: NFC, nothing invisible, single spaces, none at the ends."""
    text = INVISIBLE.sub("", text)
    if not text.isascii():
        text = _COMPOSABLE.sub(lambda run: unicodedata.normalize("NFC", run[0]), text)
    return " ".join(text.split())


def shorten(text: str, most: int) -> str:
    """Shorten a plain line to at most `most` characters.

    It is cut at the last sentence end in the second half of the limit, or else at the last space,
    followed by `…`.
    """
    if len(text) <= most:
        return text
    ends = [m.end() for m in _SENTENCE_END.finditer(text, most // 2, most + 1) if m.end() <= most]
    if ends:
        return text[: ends[-1]]
    words = text.rfind(" ", most // 2, most)
    return text[: words if words >= 0 else most - 1].rstrip(" ,;:") + "…"


def is_kept_mark(character: str) -> bool:
    """Whether a combining mark belongs to the spelling: vowel signs do, accents do not."""
    return character in _KEPT_MARKS


def count_words(text: str) -> int:
    """Count the words of a text, separated by white space.

    In scripts without spaces, three letters count as a word; six in Thai, Lao, Burmese and Khmer.
    """
    count = 0
    for word in text.split():
        rest = word
        for runs, most in _LETTERS_A_WORD:
            letters = sum(len(LETTER.findall(run)) for run in runs.findall(rest))
            rest = runs.sub(" ", rest)
            count += -(-letters // most)
        count += sum(rest == word or any(map(str.isalnum, part)) for part in rest.split())
    return count
