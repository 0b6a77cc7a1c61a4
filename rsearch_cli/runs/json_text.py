"""JSON that every parser accepts: the only place in the package that writes JSON.

Python's `json` reads and writes `NaN` and `Infinity`, which are not JSON. Here a number that is not
finite is null in both directions. Control characters are escaped, so that the text can be printed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rsearch_cli.terminal import escape_suspect


def dump_json(value: Any, **options: Any) -> str:
    """Return a value as JSON; numbers that are not finite become null.

    Args:
        value: Anything `json.dumps` accepts.
        options: Passed to `json.dumps`; by default, text beyond ASCII is not escaped.
    """
    options = {"ensure_ascii": False, **options, "allow_nan": False}
    try:
        text = json.dumps(value, **options)
    except ValueError:
        text = json.dumps(finite_only(value), **options)
    return escape_suspect(text, lambda characters: json.dumps(characters)[1:-1])


def parse_json(text: str) -> Any:
    """Parse JSON; `NaN` and `Infinity`, which `json.loads` accepts, become None.

    Raises:
        ValueError: It is not JSON (as `json.JSONDecodeError`), or a number is too long.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


MOST_CHARS = 1 << 26
"""Most characters of a JSON file that is read whole; the index of a large model has 10^7."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that contains one JSON object.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not UTF-8, not JSON, not an object, nested too deeply, or too large.
    """
    with path.open(encoding="utf-8") as file:
        text = file.read(MOST_CHARS + 1)
    if len(text) > MOST_CHARS:
        raise ValueError(f"it has more than {MOST_CHARS:,} characters")
    try:
        value = parse_json(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it must be a JSON object, not {type(value).__name__}")
    return value


def finite_only(value: Any) -> Any:
    """Return the value with None in place of every number that is not finite."""
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
