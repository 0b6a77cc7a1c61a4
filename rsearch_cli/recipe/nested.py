"""Nested settings, addressed by the keys on the way to a value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

Keys = tuple[str, ...]

WITHOUT_EFFECT = frozenset(
    {
        "service",
        "read_service",
        "cache_days",
        "url",
        "usd_per_search",
        "usd_per_million_input_tokens",
        "usd_per_million_output_tokens",
    }
)
"""Names of settings that change neither what is found nor what is written; the address of a server
is described where it matters."""


def leaves(tree: Mapping[str, Any], above: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield every value that is not a mapping, or an empty one, with its keys."""
    for name, value in tree.items():
        keys = (*above, str(name))
        if isinstance(value, dict) and value:
            yield from leaves(value, keys)
        else:
            yield keys, value


def look_up(tree: Any, *keys: str) -> Any:
    """Return the value under some keys; None if there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def without(tree: Any, names: Collection[str]) -> Any:
    """Return nested settings without the keys of these names."""
    if not isinstance(tree, dict):
        return tree
    return {key: without(value, names) for key, value in tree.items() if key not in names}


def nest(keys: Keys, value: Any) -> Any:
    """Return settings with a single value, under some keys."""
    for key in reversed(keys):
        value = {key: value}
    return value


def merge(lower: dict[str, Any], higher: dict[str, Any]) -> dict[str, Any]:
    """Merge `higher` into `lower`: mappings merge, lists and scalars are replaced."""
    merged = dict(lower)
    for key, value in higher.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged
