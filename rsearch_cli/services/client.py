"""The client of one service: every call to anything outside this process goes through it.

A request passes through the cache, deduplication of concurrent requests, the retry policy and the
budget. One that is not answered after all retries raises `ServiceFailure` for everyone who waits
for it and is not stored. `AccessDenied`, `BudgetExceeded` and `OfflineMiss` must end the run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import JsonValue

from rsearch_cli.errors import AccessDenied, OfflineMiss, ServiceFailure
from rsearch_cli.services.budget import Budget, Hold
from rsearch_cli.services.cache import AnswerCache, Entry, read_key
from rsearch_cli.services.outcomes import CallFailure, PermanentFailure, Reply
from rsearch_cli.services.retry import RetryPolicy
from rsearch_cli.services.singleflight import SingleFlight

Call = Callable[[], Awaitable[Reply]]
Read = Callable[[JsonValue], Any]


def _unchanged(value: JsonValue) -> JsonValue:
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        value: As the `read` of the request returned it.
        cached: No call was made for it: it came from disk, or from an equal request in flight.
        usd: What the calls for it cost, failed attempts included.
    """

    value: Any
    cached: bool
    usd: float


class ServiceClient:
    """Requests to one service, on the event loop of the services.

    Args:
        service: Its name in messages and in the budget.
        cache: Where its answers are stored.
        budget: What its calls are paid from.
        retry: How it is called; None for sources within this process.

    Attributes:
        denied: The error with which the service refused the key; nothing more is sent after that.
    """

    def __init__(
        self, service: str, cache: AnswerCache, budget: Budget, retry: RetryPolicy | None
    ) -> None:
        self.service = service
        self.budget = budget
        self.denied: AccessDenied | None = None
        self._cache = cache
        self._retry = retry
        # Beside the answers: a cache that is set aside must not take the locks with it.
        lock_file = cache.folder.with_name(f".{cache.folder.name}.requests.lock")
        self._singleflight = SingleFlight(lock_file if retry else None)

    @property
    def may_send(self) -> bool:
        """Whether requests may be sent at all."""
        return self._cache.mode != "offline"

    def raise_if_denied(self) -> None:
        """Raise the error with which the service refused the key, if it has."""
        if self.denied is not None:
            raise self.denied

    async def fetch(
        self,
        key: str,
        call: Call,
        *,
        worst_usd: float = 0.0,
        ttl_seconds: float | None = None,
        read: Read = _unchanged,
    ) -> Answer:
        """Answer a request from the cache, from an equal request in flight, or by a call.

        Args:
            key: Identifies the request; see `make_key`.
            call: Sends the request once; raises `TransientFailure`, `PermanentFailure` or
                `AccessDenied`. Not called on a hit, and once per attempt otherwise.
            worst_usd: Highest cost of one call.
            ttl_seconds: How long the answer stays valid; None is forever.
            read: Converts an answer into the value the caller uses; raises `ValueError` for an
                invalid one. A new answer then counts as a failed call; a stored one is removed and
                the request is sent again.

        Raises:
            ServiceFailure: No answer, after all retries.
            AccessDenied: The service refuses the key or the account, now or earlier.
            BudgetExceeded: The call could exceed the limit.
            OfflineMiss: There is no stored answer, and the cache mode is offline.
        """
        if (found := self._look_up(key, read)) is not None:
            return self._hit(*found)
        if not self.may_send and self._retry is not None:
            raise OfflineMiss(_describe_miss(self.service, key))
        attempts = _Attempts(self, call, worst_usd)
        entry, value = await self._singleflight.run(
            key, lambda: self._ask(key, attempts, ttl_seconds, read)
        )
        if attempts.sent:
            return Answer(value, False, attempts.usd)
        return self._hit(entry, value)

    def _hit(self, entry: Entry, value: Any) -> Answer:
        self.budget.count_hit(self.service, entry.usd)
        return Answer(value, True, 0.0)

    def _look_up(self, key: str, read: Read) -> tuple[Entry, Any] | None:
        """Return a stored answer and its value; an invalid one is removed from the cache."""
        entry = self._cache.find(key)
        if entry is None:
            return None
        try:
            return entry, read(entry.value)
        except ValueError as problem:
            self._cache.drop(key, problem)
            return None

    async def _ask(
        self, key: str, attempts: _Attempts, ttl_seconds: float | None, read: Read
    ) -> tuple[Entry, Any]:
        # Another process may have stored it while this one waited for its lock.
        if (found := self._look_up(key, read)) is not None:
            return found
        try:
            if self._retry is None:
                attempts.reserve()
                answer = await attempts.send()
            else:
                answer = await self._retry.run(attempts.send, attempts.wait_and_reserve)
            _check(read, answer)
            entry = self._cache.put(key, answer, ttl_seconds, attempts.last_usd)
            return entry, read(entry.value)
        except CallFailure as failure:
            self.budget.count_failure(self.service)
            tried = f" (tried {attempts.sent} times)" if attempts.sent > 1 else ""
            raise ServiceFailure(f"{failure}{tried}") from failure


class _Attempts:
    """The calls for one request, each reserved in the budget before it is sent.

    Attributes:
        sent: Number of calls.
        usd: What they cost together, failed ones included.
        last_usd: What the last one cost.
    """

    def __init__(self, client: ServiceClient, call: Call, worst_usd: float) -> None:
        self._client = client
        self._call = call
        self._worst_usd = worst_usd
        self._hold: Hold | None = None
        self.sent = 0
        self.usd = 0.0
        self.last_usd = 0.0

    def reserve(self) -> None:
        """Reserve the cost of the next call."""
        client = self._client
        self._hold = client.budget.reserve(client.service, self._worst_usd)

    async def wait_and_reserve(self) -> None:
        """Reserve the cost of the next call as soon as the budget allows one more in flight."""
        client = self._client
        client.raise_if_denied()
        hold = await client.budget.wait_and_reserve(client.service, self._worst_usd)
        try:
            client.raise_if_denied()
        except AccessDenied:
            hold.withdraw()
            raise
        self._hold = hold

    async def send(self) -> JsonValue:
        """Make the call that was reserved."""
        hold, self._hold = self._hold, None
        assert hold is not None
        self.sent += 1
        # A call that is cut off, by a time-out or by the end of the run, may have been charged for.
        book = hold.forfeit
        try:
            reply = await self._call()
            book = partial(hold.settle, reply.usd)
            return reply.value
        except CallFailure as failure:
            book = hold.cancel if failure.free else book
            raise
        except AccessDenied as denied:
            book, self._client.denied = hold.cancel, denied
            raise
        finally:
            self.last_usd = book()
            self.usd += self.last_usd


def _check(read: Read, answer: JsonValue) -> None:
    """Check a new answer, so that only valid ones are stored.

    Raises:
        PermanentFailure: It is invalid.
    """
    try:
        read(answer)
    except ValueError as problem:
        raise PermanentFailure(f"the answer is not valid ({problem})") from problem


def _describe_miss(service: str, key: str) -> str:
    parts = read_key(key)
    asked = parts.get("query") or parts.get("question") or parts.get("page") or key
    return (
        f"{service} has no stored answer to {asked!r}, and cache.mode is offline: nothing is sent; "
        "import an export that holds it (rsearch cache import FILE), or run once with "
        "--set cache.mode=read-write"
    )
