"""The outcomes of one call to a service: a reply, or a transient or permanent failure.

Sources, judge and policy raise these failures; `ServiceClient` turns them into `ServiceFailure`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from rsearch_cli.services.keys import hide_secrets


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one call.

    Attributes:
        value: The answer, as JSON.
        usd: Its cost as the service reports it, unchecked; None if it reports none.
    """

    value: JsonValue
    usd: object = None


class CallFailure(Exception):
    """A call without an answer.

    Attributes:
        free: The service certainly charged nothing, as when it refuses the request. A call that was
            cut off may have been charged for, and counts in full.
    """

    def __init__(self, message: str, *, free: bool = False) -> None:
        # All failures pass here on their way to the terminal and to files, also those of sources
        # from other packages.
        super().__init__(hide_secrets(message))
        self.free = free


class TransientFailure(CallFailure):
    """A failure that may pass: the call is retried.

    Attributes:
        retry_after: Seconds to wait that the service asks for, or None.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, *, free: bool = False
    ) -> None:
        super().__init__(message, free=free)
        self.retry_after = retry_after


class PermanentFailure(CallFailure):
    """A failure that a retry would meet again."""
