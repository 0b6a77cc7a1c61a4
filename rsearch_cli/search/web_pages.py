"""Web pages as passages: addresses that can be cited, and texts on one line."""

from __future__ import annotations

import re
from dataclasses import replace

from rsearch_cli.protocol.characters import INVISIBLE, flatten, shorten
from rsearch_cli.types import Passage

TITLE_CHARS = 300
"""Longest title of a passage, in characters."""

# Longer addresses can be used neither in browsers nor in citations.
_ADDRESS = re.compile(r"https?://[^\s/?#]\S{0,1999}")


def is_citable(url: str) -> bool:
    """Whether this is a web address of characters that can be stored and shown."""
    return _ADDRESS.fullmatch(url) is not None and INVISIBLE.search(url) is None


def tidy(page: Passage, most: int) -> Passage:
    """Return a page as one line of title and one of text, of at most `most` characters."""
    text = flatten(page.text)
    # A service may cut within words: a text of the requested length is not complete.
    limit = min(most, len(text) - 1) if text and len(page.text) >= most else most
    title = shorten(flatten(page.title), TITLE_CHARS)
    return replace(page, title=title, text=shorten(text, limit))
