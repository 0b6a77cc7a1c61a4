"""Values that came from outside: what is taken as it is, what is mended, what is refused."""

from __future__ import annotations

import json
from math import isfinite
from numbers import Real
from typing import Any, NoReturn, TypeGuard, TypeVar

N = TypeVar("N", int, float)

MOST_USD_PER_CALL = 100.0
"""Highest charge for one call that is believed; no search or completion costs nearly as much."""

MOST_TOKENS = 10_000_000
"""Highest token count for one call that is believed; no model takes or writes as many."""


def mend(text: str) -> str:
    """Text with U+FFFD for every lone surrogate, which no file and no request can hold.

    JSON has an escape for them, and servers send them where a limit cuts an emoji in two.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that a float can hold; true and false are none."""
    if type(value) is float:  # by far the most common case
        return isfinite(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def read_charge(value: object) -> float | None:
    """What a service says that a call cost, in USD; None where that is no credible amount."""
    if is_finite(value) and 0.0 <= value <= MOST_USD_PER_CALL:
        return float(value)
    return None


def read_token_count(value: object) -> int | None:
    """How many tokens a server says that it counted; None where that is no credible number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
        return value
    return None


def check_number(value: Any, kind: type[N]) -> N:
    """A number that is finite and not negative, as a whole number where `kind` is int.

    Raises:
        ValueError: It is none, negative or not finite.
    """
    if not is_finite(value) or value < 0 or kind(value) != value:
        raise ValueError(f"{value!r:.40} where a number belongs")
    return kind(value)


def parse_strictly(text: str) -> Any:
    """Parse JSON that says one thing: no field twice in an object, no NaN and no infinity.

    Raises:
        ValueError: It is not such JSON, or it is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_read_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it gives a field twice")
    return found
