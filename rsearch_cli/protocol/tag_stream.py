"""Split a growing transcript into blocks, for display while it is generated.

A closing tag without an opening one just ends the current block.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rsearch_cli.protocol.transcript import TAG

# Text that may turn out to be the start of a tag or of a line end.
_HALF = re.compile(r"(?:<\s{0,2}/?\s{0,2}[a-z]{0,6}\s{0,2}|\r)\Z", re.IGNORECASE)


class Piece(NamedTuple):
    """Text and the name of its block: `think`, `search`, ... or ""."""

    block: str
    text: str


class TagStream:
    """Splits text that arrives in parts into blocks without their tags."""

    def __init__(self) -> None:
        self._block = ""
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """Split the next part; the possible start of a tag is held back."""
        text = self._held + text
        half = _HALF.search(text)
        self._held = text[half.start() :] if half else ""
        return self._cut(text[: half.start()] if half else text)

    def enter(self, block: str) -> None:
        """Set the current block, if its opening tag was only noticed later."""
        self._block = block

    def finish(self) -> list[Piece]:
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return self._cut(held)

    def _cut(self, text: str) -> list[Piece]:
        pieces, start = [], 0
        for tag in TAG.finditer(text):
            pieces.append(Piece(self._block, text[start : tag.start()]))
            name = tag[2].lower()
            self._block = "" if tag[1] else "result" if name == "r" else name
            start = tag.end()
        pieces.append(Piece(self._block, text[start:]))
        return [piece for piece in pieces if piece.text]
