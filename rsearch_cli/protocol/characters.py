"""Characters: foreign text as one plain line of bounded length.

Place in the path: below the plan grammar, the result block and the sources, so that all mean the
same by a blank and by the end of a sentence. On failure: none; every string has a plain line, which
may be empty.
"""

from __future__ import annotations

import re
import unicodedata

INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters that are no white space
    "\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069"  # zero width, byte order, direction
    "\ud800-\udfff]"  # lone surrogates, which no tokenizer can encode
)
"""Characters that show nothing and are dropped."""

# NFC sorts combining marks in quadratic time, so a run is normalised in pieces of this length. No
# composition reaches back over an ASCII character, and real runs are far shorter.
_COMPOSABLE = re.compile(r"[!-~]?[^\x00-\x7f]{1,256}")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]{0,3}(?= )|[。！？]")


def flatten(text: str) -> str:
    """Put text on one line: NFC, nothing invisible, one blank between words, none at the ends."""
    text = INVISIBLE.sub("", text)
    text = _COMPOSABLE.sub(lambda run: unicodedata.normalize("NFC", run[0]), text)
    return " ".join(text.split())


def shorten(text: str, most: int) -> str:
    """Cut a plain line to at most `most` characters.

    The cut is at the last sentence end in the second half of the limit; where there is none, at the
    last blank, and `…` stands for the rest.
    """
    if len(text) <= most:
        return text
    ends = [m.end() for m in _SENTENCE_END.finditer(text, most // 2, most + 1) if m.end() <= most]
    if ends:
        return text[: ends[-1]]
    words = text.rfind(" ", most // 2, most)
    return text[: words if words >= 0 else most - 1].rstrip(" ,;:") + "…"
