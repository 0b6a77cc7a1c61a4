"""What searches of the web share: pages as passages, addresses that can be cited, days."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator

from rsearch_cli.protocol.characters import INVISIBLE, flatten, shorten
from rsearch_cli.services.validation import is_finite
from rsearch_cli.types import Passage

TITLE_CHARS = 300
"""Longest title of a passage, in characters."""

# Longer addresses can be used neither in browsers nor in citations.
_ADDRESS = re.compile(r"https?://[^\s/?#]\S{0,1999}")


def _check_day(text: str) -> str:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ValueError(f"must be a day as 'YYYY-MM-DD', got {text!r}")


Day = Annotated[str, AfterValidator(_check_day)]
"""A day as 'YYYY-MM-DD'."""


def read_page(
    row: Mapping[str, Any], *, url: str, title: str, text: str, most: int
) -> Passage | None:
    """Read one result of a web search.

    Args:
        row: The result, as its service sent it.
        url: Name of the field with its address, which becomes the id.
        title: Name of the field with its title.
        text: Name of the field with its text.
        most: Longest text, in characters.

    Returns:
        The page on one line of title and one of text; None if it cannot be cited.

    Raises:
        LookupError: It has no address.
        TypeError: A field has the wrong type.
    """
    words = row[url], row.get(title) or "", row.get(text) or ""
    score = row.get("score") or 0.0
    if not all(isinstance(word, str) for word in words) or not is_finite(score):
        raise TypeError("not a web page")
    page = Passage(words[0], words[1], words[2], score=float(score))
    return tidy(page, most) if is_citable(page.id) else None


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
