"""Validation of values that come from outside: services, caches and files."""

from __future__ import annotations

import json
from math import isfinite
from numbers import Real
from typing import Any, NoReturn, TypeGuard, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MOST_USD_PER_CALL = 100.0
"""Highest credible charge for one call; no search or completion costs nearly as much."""

MOST_TOKENS = 10_000_000
"""Highest credible token count of one call; no model reads or writes as many."""


def mend(text: str) -> str:
    """Replace every lone surrogate by U+FFFD, because no file and no request can hold one.

    JSON can escape them, and servers send them where a limit cuts an emoji in two.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_finite(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number within the range of a float; bools are not."""
    if type(value) is float:  # by far the most common case
        return isfinite(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def read_charge(value: object) -> float | None:
    """Return the charge that a service reports, in USD; None if it is not a credible amount."""
    if is_finite(value) and 0.0 <= value <= MOST_USD_PER_CALL:
        return float(value)
    return None


def read_token_count(value: object) -> int | None:
    """Return the token count that a server reports; None if it is not a credible number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
        return value
    return None


def validate(kind: TypeAdapter[T], value: Any) -> T:
    """Return a value as what it should be.

    Raises:
        ValueError: It is something else; the message is one line.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = " of ".join(map(str, reversed(first["loc"]))) or "the value"
        raise ValueError(f"{where}: {first['msg']}, not {first['input']!r:.40}") from None


def parse_strictly(text: str) -> Any:
    """Parse JSON without ambiguity: no field twice in an object, no NaN and no infinity.

    Raises:
        ValueError: The text is not such JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_read_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it gives a field twice")
    return found
