"""What every HTTP request passes before it reaches the app: who may ask, how often, and how long.

Without a key, the server answers this machine only, and only requests that name it: a web page
that has rebound its own host name to the loopback address sends that name as `Host`, and one that
posts from elsewhere sends its `Origin`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from rsearch_cli.recipe.addresses import is_loopback
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.serving.api_errors import ApiError, as_api_error, shutting_down
from rsearch_cli.serving.metrics import ServerMetrics
from rsearch_cli.serving.settings import REMOTE_RATE, ServeSettings

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ROUTES = {
    "/v1/chat/completions": "chat",
    "/v1/models": "models",
    "/health": "health",
    "/metrics": "metrics",
    "/mcp": "mcp",
    "/": "page",
}
_OPEN = frozenset({"health", "page"})
_MOST_CLIENTS = 10_000


class Guard:
    """ASGI middleware around the whole app.

    Args:
        app: The app.
        settings: Key and rate.
        metrics: Counts every request.

    Attributes:
        draining: The server is stopping: nothing new is accepted.
    """

    def __init__(self, app: App, settings: ServeSettings, metrics: ServerMetrics) -> None:
        self.draining = False
        self._app = app
        self._metrics = metrics
        self._rates = RateLimiter(settings.rate_limit)
        key = settings.api_key
        self._digest = None if key is None else sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = route_of(scope["path"])
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                caching = "no-cache" if route == "page" else "no-store"
                message["headers"] = secure_headers(message.get("headers", ()), caching)
            await send(message)

        self._metrics.in_flight.inc()
        scope["state"] = {**scope.get("state", {}), "draining": self.draining}
        try:
            self._check(scope, route)
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # The server has ended, and with it what is left: slow bodies, idle streams of MCP.
            if not self.draining:
                raise
            if not status:
                await send_error(send_with_headers, shutting_down())
        except Exception as error:
            if not status:
                await send_error(send_with_headers, as_api_error(error))
            elif not isinstance(error, ApiError):
                as_api_error(error)  # logs it; the response has begun
        finally:
            self._metrics.in_flight.dec()
            self._metrics.count_request(route, status)
            seconds = time.perf_counter() - started
            logger.debug(f"{scope['method']} {scope['path']} {status} {seconds:.3f} s")

    def _check(self, scope: Scope, route: str) -> None:
        """Raise `ApiError` for a request that must not reach the app."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if self._digest is None:
            check_addressed_here(headers)
        if route in _OPEN:
            return
        if self.draining and route in ("chat", "mcp"):
            raise shutting_down()
        client = scope.get("client") or ("", 0)
        self._rates.check(client[0])
        if self._digest is not None and not _is_key(headers.get("authorization", ""), self._digest):
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                "invalid_api_key",
            )


class RateLimiter:
    """At most so many requests a minute from one client address, evenly refilled.

    Args:
        per_minute: The limit; None allows any number from this machine and `REMOTE_RATE` from
            others.
        clock: Returns seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        # Address to what is left and when that was counted; the least recent client is forgotten.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count a request of a client.

        Raises:
            ApiError: There are too many.
        """
        limit = self._per_minute
        if limit is None:
            if is_loopback(client):
                return
            limit = REMOTE_RATE
        now = self._clock()
        left, counted = self._left.pop(client, (float(limit), now))
        left = min(float(limit), left + (now - counted) * limit / 60)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        if not allowed:
            raise ApiError(
                429,
                f"more than {limit} requests a minute",
                "rate_limit_exceeded",
                retry_after=(1 - left) * 60 / limit,
            )


def route_of(path: str) -> str:
    """Return the name of a route for metrics."""
    if path.startswith("/v1/models/"):
        return "models"
    if path.startswith("/static/"):
        return "page"
    return _ROUTES.get(path.rstrip("/") or "/", "other")


async def send_error(send: Send, error: ApiError) -> None:
    """Send an error as a whole response."""
    body = dump_json(error.as_json(), ensure_ascii=True).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **error.headers(),
    }
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def check_addressed_here(headers: Mapping[str, str]) -> None:
    """Check that a request names this machine, and does not come from a page of another site.

    Args:
        headers: By lower-case name.

    Raises:
        ApiError: It does not.
    """
    host = headers.get("host", "")
    if not is_loopback(_name_of(f"//{host}")):
        raise ApiError(
            403,
            "this server answers requests to localhost only; for other names, start it with "
            "--api-key",
            "wrong_host",
        )
    origin = headers.get("origin")
    if origin is not None and _place_of(origin) != host.lower():
        raise ApiError(403, "requests from web pages of other sites are refused", "wrong_origin")


def _name_of(url: str) -> str:
    """The host of a URL; "" if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place_of(url: str) -> str:
    """Host and port of a URL."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _is_key(header: str, digest: bytes) -> bool:
    scheme, _, given = header.partition(" ")
    # Digests have one length, so that the comparison takes the same time for every key.
    same = hmac.compare_digest(sha256(given.strip().encode("latin-1")).digest(), digest)
    return same and scheme.lower() == "bearer"


def secure_headers(given: Any, caching: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with those that confine the page.

    Args:
        given: The headers so far, which take precedence.
        caching: `Cache-Control`.
    """
    headers = [(bytes(name), bytes(value)) for name, value in given]
    present = {name.lower() for name, _ in headers}
    own = {**_HEADERS, "Cache-Control": caching}
    added = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    return headers + [(name, value) for name, value in added if name not in present]
