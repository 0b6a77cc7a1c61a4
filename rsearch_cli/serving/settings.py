"""What the operator of a server can set, and its fixed limits."""

from __future__ import annotations

from dataclasses import dataclass

KEY_VARIABLE = "RSEARCH_API_KEY"
"""Environment variable with the key that clients have to send."""

MAX_BODY_BYTES = 1 << 20
"""Largest body of a request."""

BODY_SECONDS = 30.0
"""Longest time that a client may take to send the body of a request."""

REMOTE_RATE = 120
"""Default for the requests a minute of a client on another machine."""

LEAST_KEY_CHARS = 16
"""Shortest key, because it may be tried from anywhere."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of a server.

    Attributes:
        api_key: What clients have to send, or None; required for other machines.
        max_waiting: Most requests that wait for their turn.
        rate_limit: Most requests a minute of one client address; None allows any number from this
            machine and `REMOTE_RATE` from others.
        drain_seconds: How long running requests may take to finish after SIGTERM or Ctrl-C.
    """

    api_key: str | None = None
    max_waiting: int = 64
    rate_limit: int | None = None
    drain_seconds: float = 30.0
