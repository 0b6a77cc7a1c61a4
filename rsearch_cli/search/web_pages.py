"""What searches of the web share: pages as passages, addresses that can be cited, days."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def read_pages(
    rows: Iterable[Mapping[str, Any]], *, url: str, title: str, text: str, most: int
) -> list[Passage]:
    """Read the results of a web search, without those that cannot be cited.

    Args:
        rows: The results, as their service sent them.
        url: Name of the field with the address, which becomes the id.
        title: Name of the field with the title.
        text: Name of the field with the text.
        most: Longest text, in characters.

    Returns:
        Pages on one line of title and one of text.

    Raises:
        LookupError: A result has no address.
        TypeError: The results, or a field of one, have the wrong type.
    """
    pages = []
    for row in rows:
        address = row[url]
        heading, body = ("" if row.get(field) is None else row[field] for field in (title, text))
        score = 0.0 if row.get("score") is None else row["score"]
        if not all(isinstance(w, str) for w in (address, heading, body)) or not is_finite(score):
            raise TypeError("not a web page")
        if is_citable(address):
            pages.append(tidy(Passage(address, heading, body, score=float(score)), most))
    return pages


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
