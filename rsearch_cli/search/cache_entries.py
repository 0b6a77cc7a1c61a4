"""Cache entries of searches: their keys, their lifetime, and passages as JSON.

Passages are validated when they are written and when they are read, because a source may return,
and a cache or an import may contain, anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.sources import SearchRequest, SearchSource
from rsearch_cli.services.cache import make_key, normalise
from rsearch_cli.services.outcomes import PermanentFailure
from rsearch_cli.services.validation import is_finite, mend
from rsearch_cli.types import Passage

TEXT_CHARS = 100_000
"""Longest text of a page that is kept, in characters."""

_DAY_SECONDS = 86400.0
_KINDS: Mapping[str, type] = {"id": str, "title": str, "text": str, "source": str, "score": float}


def request_key(fingerprint: str, request: SearchRequest) -> str:
    """Return the cache key of a request: everything that changes its answer.

    Queries that differ only in white space or Unicode composition share a key. The answer is listed
    and cleared under the first part of the fingerprint: `bm25/...` under `bm25`.
    """
    # Left out where it is off, so that answers stored before it existed stay valid.
    matching: dict[str, object] = {"match_titles": True} if request.match_titles else {}
    if request.mentions:  # whole passages, and the cache keeps its keys
        texts = dump_json(request.mentions, ensure_ascii=True).encode("ascii")
        matching["mentions"] = hashlib.sha256(texts).hexdigest()
    return make_key(
        fingerprint.partition("/")[0],
        fingerprint=fingerprint,
        query=normalise(request.query),
        expansion=request.expansion,
        top_k=request.top_k,
        own_words_weight=request.own_words_weight,
        **matching,
    )


def seconds_kept(source: SearchSource, settings: SourceConfig) -> float | None:
    """Return how long an answer of a source stays valid; None is forever.

    The recipe decides, or else the source's own `cache_days`.
    """
    days = source.cache_days if settings.cache_days is None else settings.cache_days
    return None if days is None else days * _DAY_SECONDS


def encode_passages(passages: object, most: int) -> JsonValue:
    """Return the result of a source as JSON for `decode_passages`.

    Lone surrogates become U+FFFD, because no file and no request can hold them. Passages with
    neither title nor text are dropped.

    Args:
        passages: Should be a list of `Passage`.
        most: Number of requested passages; any further ones are dropped.

    Raises:
        ValueError: It is not a list of passages.
    """
    if not isinstance(passages, list | tuple):
        raise ValueError(f"{type(passages).__name__} in place of a list of passages")
    rows = [_encode(passage) for passage in passages[:most]]
    return [row for row in rows if _says_something(row)]


def decode_passages(value: JsonValue, most: int) -> tuple[Passage, ...]:
    """Parse the result of `encode_passages`, strictly.

    Args:
        value: A stored answer.
        most: Number of requested passages.

    Raises:
        ValueError: The value is not a list of at most `most` passages.
    """
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"not a list of at most {most} passages")
    if not all(isinstance(row, dict) and row.keys() == _KINDS.keys() for row in value):
        raise ValueError("a passage does not have the fields of one")
    passages = tuple(Passage(**row) for row in value)  # type: ignore[arg-type]
    for p in passages:
        texts = (p.id, p.title, p.text, p.source)
        if not (all(map(_is_storable, texts)) and is_finite(p.score)):
            raise ValueError(_describe_flaw(p))
    return passages


def _describe_flaw(passage: Passage) -> str:
    for name, kind in _KINDS.items():
        value = getattr(passage, name)
        if not (isinstance(value, str) if kind is str else is_finite(value)):
            return f"the {name} of a passage is {type(value).__name__} {value!r:.40}"
    return "a passage holds text that cannot be stored"


def _is_storable(text: object) -> bool:
    """Whether this is text without lone surrogates."""
    if not isinstance(text, str):
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _encode(passage: object) -> dict[str, JsonValue]:
    """Return one passage as a JSON object.

    Raises:
        ValueError: It is not a passage, or a field has the wrong type or is not finite.
    """
    if not isinstance(passage, Passage):
        raise ValueError(f"{type(passage).__name__} in place of a passage")
    row: dict[str, JsonValue] = {}
    for name, kind in _KINDS.items():
        value = getattr(passage, name)
        if kind is str and isinstance(value, str):
            row[name] = mend(value)
        elif kind is float and is_finite(value):
            row[name] = float(value)
        else:
            raise ValueError(f"the {name} of a passage is {type(value).__name__} {value!r:.40}")
    return row


def _says_something(row: dict[str, JsonValue]) -> bool:
    return any(str(row[name]).strip() for name in ("title", "text"))


def encode_text(text: object, problem: str = "") -> JsonValue:
    """Return the text of a page as JSON for `read_text`.

    Args:
        text: Should be a text, or None.
        problem: Why there is none.

    Raises:
        PermanentFailure: It is something else.
    """
    if text is not None and not isinstance(text, str):
        raise PermanentFailure(f"the source returned {type(text).__name__} in place of a text")
    return {"text": None if text is None else mend(text[:TEXT_CHARS]), "problem": mend(problem)}


def read_text(value: JsonValue) -> tuple[str | None, str]:
    """Parse a stored page.

    Returns:
        Its text, or None and why it has none.

    Raises:
        ValueError: It is no stored page.
    """
    fields: Mapping[str, Any] = value if isinstance(value, dict) else {}
    text, problem = fields.get("text"), fields.get("problem")
    if fields.keys() != {"text", "problem"} or not isinstance(problem, str):
        raise ValueError("not the text of a page")
    if text is not None and not (isinstance(text, str) and len(text) <= TEXT_CHARS):
        raise ValueError("not the text of a page")
    return text, problem


def read_robots(value: JsonValue) -> str:
    """Parse a stored robots.txt.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError("not a robots.txt")
    return value
