"""What a call to a service gives, or how it fails.

Place in the path: the words that a source or a judge and the `client` have in common. On failure:
these are the failures; only the client sees them, and it turns them into a `ServiceFailure`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from rsearch_cli.services.keys import hide_secrets


@dataclass(frozen=True, slots=True)
class Reply:
    """What one call to a service gave.

    Attributes:
        value: The answer, as JSON.
        usd: What it cost, as the service states it, unchecked; None if it states nothing.
    """

    value: JsonValue
    usd: object = None


class CallFailure(Exception):
    """A call that gave no answer.

    Attributes:
        free: The service certainly charged nothing, as when it refuses with a status of its own. A
            call that was cut off may have been charged for, and counts in full.
    """

    def __init__(self, message: str, *, free: bool = False) -> None:
        # Here, because all failures pass here on their way to the terminal and to files; those of
        # sources of third parties, too.
        super().__init__(hide_secrets(message))
        self.free = free


class TransientFailure(CallFailure):
    """A failure that may pass: the same call is sent again.

    Attributes:
        retry_after: Seconds that the service asks to wait, or None.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, *, free: bool = False
    ) -> None:
        super().__init__(message, free=free)
        self.retry_after = retry_after


class PermanentFailure(CallFailure):
    """A failure that the same call would meet again."""
