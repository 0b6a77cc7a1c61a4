"""Text from outside, made safe for a terminal, JSON, YAML and Markdown.

Questions, passages, model output, error bodies, names and paths may contain anything: escape
sequences that a terminal executes, characters that reorder a line or hide text, markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from numbers import Real

LINE_LIMIT = 2000
"""Maximum characters of a line of a message, and of a name or a cell in a result."""

_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2100-\u214f\u2190-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff"
)
_IDEOGRAPHS = "\u3000-\u303f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Scripts whose spelling needs joiners: Hebrew, Arabic, Syriac, those of India, Mongolian, ...
_JOINING = (
    "\u0590-\u1cff\ua800-\uabff\ufb1d-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f"
)
_ACCENTS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"

# The group `proper` is needed by its script or emoji, and is kept.
_SUSPECT = re.compile(
    "(?P<proper>"
    f"(?<=[{_JOINING}{_EMOJI}])[\u200c\u200d]|(?<=[{_EMOJI}]\ufe0f)\u200d"
    f"|(?<=[{_EMOJI}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)|(?<=[\u2200-\u2aff])\ufe00"
    f"|(?<=[{_IDEOGRAPHS}])[\ufe00-\ufe02\U000e0100-\U000e01ef]"
    "|(?<=[\u1820-\u18aa])[\u180b-\u180f]"
    "|(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)"
    "|(?P<direction>(?<![\u061c\u200e\u200f])[\u061c\u200e\u200f])"
    "|(?P<line>[\u2028\u2029])"
    # Soft hyphens, spaces and letters without width, joiners and selectors out of place.
    "|(?P<hidden>[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2065\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    f"\U000e0100-\U000e0fff]+|(?<=[{_ACCENTS}]{{8}})[{_ACCENTS}]+)"
    # C0 and C1 but tab and newline, bidirectional overrides and isolates, halves of surrogate
    # pairs, non-characters.
    "|(?P<bad>[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\ud800-\udfff\ufff9-\ufffb"
    "\ufdd0-\ufdef\ufffe\uffff]|[\U000e0000-\U000e00ff]+)"
)
# The characters that a match of `_SUSPECT` can start with: at others, none has to be tried.
_FIRST = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    f"\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff{_ACCENTS}]"
)
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u061b\u0620-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")


def printable(text: str, before: str = "") -> str:
    """Return text without anything that a terminal executes or a reader cannot see.

    Control characters, bidirectional overrides and isolates, and non-characters become U+FFFD;
    invisible characters are removed unless a script or an emoji needs them. Tabs and newlines stay.

    Args:
        text: The text to show.
        before: The end of the text before it, for text that arrives in pieces.
    """
    text = text.replace("\r\n", "\n")
    has_rtl_letters = bool(_RIGHT_TO_LEFT.search(text))

    def show(found: re.Match[str]) -> str:
        kind = found.lastgroup
        if kind == "proper" or (kind == "direction" and has_rtl_letters):
            return found[0]
        return {"line": "\n", "bad": "\ufffd"}.get(kind or "", "")

    whole, end, shown = before + text, len(before), []
    for found in _find_suspect(whole, end):
        shown += [whole[end : found.start()], show(found)]
        end = found.end()
    return "".join([*shown, whole[end:]])


def on_one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Return `printable` text on one line, shortened to about `limit` characters."""
    return shorten(printable(text).replace("\n", " "), limit)


def escape_suspect(text: str, write: Callable[[str], str]) -> str:
    """Return text in which `write` has escaped all that `printable` would change."""
    end, shown = 0, []
    for found in _find_suspect(text, 0):
        kept = found.lastgroup == "proper"
        shown += [text[end : found.start()], found[0] if kept else write(found[0])]
        end = found.end()
    return "".join([*shown, text[end:]]) if shown else text


def _find_suspect(text: str, start: int) -> Iterator[re.Match[str]]:
    """Yield the matches of `_SUSPECT`, like its `finditer` and many times as fast."""
    while first := _FIRST.search(text, start):
        found = _SUSPECT.match(text, first.start())
        if found:
            yield found
        start = (found or first).end()


def escape_markdown(text: str) -> str:
    """Return text on one line, escaped for Markdown."""
    return _MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))


def code_span(text: str) -> str:
    """Return text as a code span of Markdown, whatever backticks it contains."""
    flat = " ".join(printable(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{flat}{space}{fence}"


def shorten(text: str, limit: int) -> str:
    """Return text shortened to about `limit` characters; both ends stay."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half].rstrip()} […] {text[-half:].lstrip()}"


def finite(row: Mapping[str, object], key: str) -> float | None:
    """Return the number at `key` of a metrics row; None if missing, null, NaN or infinite."""
    value = row.get(key)
    try:
        return float(value) if isinstance(value, Real) and math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floating point numbers
        return None
