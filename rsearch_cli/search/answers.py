"""Answers: how requests to sources are named, and passages written, in the cache.

Place in the path: between the executor, which has requests and passages, and the gateway, which has
keys and JSON. On failure: a stored answer that holds no passages is a
`SourceError`; nothing else can fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from pydantic import JsonValue

from rsearch_cli.errors import SourceError
from rsearch_cli.recipe.schema import Source
from rsearch_cli.search.sources import SearchRequest, SearchSource
from rsearch_cli.services.cache import make_key, normalise
from rsearch_cli.types import Passage

DAYS_KEPT = 30.0
"""How long the answer of an outside service stays good, unless source or recipe say otherwise."""

_DAY_SECONDS = 86400.0
_FIELDS = tuple(field.name for field in fields(Passage))


def request_key(fingerprint: str, request: SearchRequest) -> str:
    """Name a request to a source by everything that changes the answer.

    Queries that differ only in white space or in how Unicode spells a letter have the same key. The
    answer is listed and cleared under the fingerprint's first part: `bm25/...` under `bm25`.
    """
    return make_key(
        fingerprint.partition("/")[0],
        fingerprint=fingerprint,
        query=normalise(request.query),
        expansion=request.expansion,
        top_k=request.top_k,
        own_words_weight=request.own_words_weight,
    )


def seconds_kept(source: SearchSource, settings: Source) -> float | None:
    """How long an answer of a source stays good; None is for ever.

    The recipe decides, then the source's own `cache_days`; else what answers within this process
    is kept for ever, because its fingerprint changes with what it answers from.
    """
    days = settings.cache_days
    if days is None:
        default = DAYS_KEPT if source.service else None
        days = getattr(source, "cache_days", default)
    return None if days is None else days * _DAY_SECONDS


def encode_passages(passages: Sequence[Passage]) -> JsonValue:
    """Write passages as JSON."""
    return [{name: getattr(passage, name) for name in _FIELDS} for passage in passages]


def decode_passages(value: JsonValue) -> tuple[Passage, ...]:
    """Read what `encode_passages` wrote.

    Raises:
        SourceError: The value is not a list of passages; an import may hold anything.
    """
    try:
        return tuple(Passage(**row) for row in value)  # type: ignore[arg-type, union-attr]
    except TypeError as error:
        raise SourceError(
            f"a stored answer holds no passages ({error}); remove it with rsearch cache clear"
        ) from error
