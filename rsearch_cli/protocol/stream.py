"""The blocks of a transcript that is still being written, for a person's screen.

A tag that closes nothing only ends the block it stands in.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rsearch_cli.protocol.transcript import TAG

# What may yet become a tag, or a line end.
_HALF = re.compile(r"(?:<\s{0,2}/?\s{0,2}[a-z]{0,6}\s{0,2}|\r)\Z", re.IGNORECASE)


class Piece(NamedTuple):
    """Some text, and the name of the block that it stands in: `think`, `search`, ... or ""."""

    block: str
    text: str


class TagStream:
    """Takes a text in parts and gives its blocks without their tags."""

    def __init__(self) -> None:
        self._block = ""
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """Take the next part; what may be half a tag is held back until it is known."""
        text = self._held + text
        half = _HALF.search(text)
        self._held = text[half.start() :] if half else ""
        return self._cut(text[: half.start()] if half else text)

    def enter(self, block: str) -> None:
        """Take what was fed so far to stand in a block; its opening tag has turned up late."""
        self._block = block

    def finish(self) -> list[Piece]:
        """What was held back, now that nothing more comes."""
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
