"""Faults that the local servers inject, and the requests that they hit.

The servers call `Faults.draw` once per request, in order of arrival. Nothing is random: a share of
0.3 hits exactly 3 of every 10 requests.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum


class Fault(StrEnum):
    """One way in which a service fails; the first eight are answered with the service's error."""

    BAD_REQUEST = "400"
    UNAUTHORIZED = "401"
    NO_CREDITS = "402"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    RATE_LIMIT = "429"
    SERVER_ERROR = "500"
    OVERLOADED = "503"
    STALL = "stall"
    CUT = "cut"
    HTML = "html"
    BAD_JSON = "bad-json"

    @property
    def status(self) -> int | None:
        """The HTTP status of an error answer; None for those that fail in another way."""
        return int(self) if self.isdigit() else None


CHAOS = (
    Fault.RATE_LIMIT,
    Fault.SERVER_ERROR,
    Fault.STALL,
    Fault.CUT,
    Fault.HTML,
    Fault.BAD_JSON,
)
"""Everything that may be over at the next attempt."""


class Faults:
    """Which requests go wrong, and how: the kinds take turns.

    Attributes:
        drawn: How often each kind was drawn.
    """

    def __init__(
        self, kinds: Iterable[Fault] = (), share: float = 1.0, first: int | None = None
    ) -> None:
        """Plan the faults.

        Args:
            kinds: What goes wrong, in turn; nothing for a server without faults.
            share: Share of the requests that are hit, 0 to 1, evenly spread.
            first: Only so many requests are hit; None for no end.
        """
        self.drawn: Counter[Fault] = Counter()
        self._kinds = tuple(kinds)
        self._share = share
        self._first = first
        self._asked = 0
        self._lock = threading.Lock()

    def draw(self) -> Fault | None:
        """What happens to the next request; None if it is answered as it should be."""
        with self._lock:
            self._asked += 1
            due = int(self._asked * self._share + 1e-9)
            if self._first is not None:
                due = min(due, self._first)
            hits = self.drawn.total()
            if not self._kinds or hits >= due:
                return None
            fault = self._kinds[hits % len(self._kinds)]
            self.drawn[fault] += 1
            return fault
