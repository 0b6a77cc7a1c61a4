"""HTTP: what the clients of services read out of headers alike.

Place in the path: below the Exa source and the judge's line. On failure: none; a header that makes
no sense is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how long a service asks to wait, in seconds, never below 0 (RFC 9110, section 10.2.3).

    Args:
        headers: Of an answer; looked up in lower case. `retry-after-ms`, which OpenAI-compatible
            servers send, is the more exact one.
    """
    seconds = _read_number(headers.get("retry-after-ms"), 1000.0)
    value = headers.get("retry-after")
    if seconds is None:
        seconds = _read_number(value)
    if seconds is None and value is not None:
        seconds = _seconds_until(value)
    return None if seconds is None else max(0.0, seconds)


def _read_number(value: str | None, per_second: float = 1.0) -> float | None:
    try:
        number = float(value or "") / per_second
    except ValueError:
        return None
    return number if isfinite(number) else None


def _seconds_until(moment: str) -> float | None:
    try:
        then = parsedate_to_datetime(moment)
    except (ValueError, OverflowError):  # the latter for a year of twenty digits
        return None
    # «-0000» means UTC without a place, and comes out without a zone.
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return (then - datetime.now(UTC)).total_seconds()
