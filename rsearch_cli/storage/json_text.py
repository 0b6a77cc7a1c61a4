"""JSON that every parser accepts: the only place in the package that writes it.

Python's own `json` writes and reads `NaN` and `Infinity`, which are not JSON. Here a number that is
not finite is null in both directions.
"""

from __future__ import annotations

import json
import math
from typing import Any


def dump_json(value: Any, **options: Any) -> str:
    """Write a value as JSON; numbers that are not finite become null.

    Args:
        value: What `json.dumps` takes.
        options: Passed on to `json.dumps`; text beyond ASCII is written as it is by default.
    """
    options = {"ensure_ascii": False, **options, "allow_nan": False}
    try:
        return json.dumps(value, **options)
    except ValueError:
        return json.dumps(finite_only(value), **options)


def parse_json(text: str) -> Any:
    """Parse JSON; numbers that are not finite, which `json.loads` lets through, become None.

    Raises:
        ValueError: It is not JSON (as `json.JSONDecodeError`), or holds a number that is too long.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


def finite_only(value: Any) -> Any:
    """The value with None for every number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_only(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_only(item) for item in value]
    return value


def _parse_float(text: str) -> float | None:
    return finite_only(float(text))


_DECODER = json.JSONDecoder(parse_constant=lambda name: None, parse_float=_parse_float)
