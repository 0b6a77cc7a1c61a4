"""The client of one service: every call to anything outside this process goes through it.

A request passes through the cache, deduplication of concurrent requests, the retry policy and the
budget. One that is not answered after all retries raises `ServiceFailure` for everyone who waits
for it and is not stored. `AccessDenied`, `BudgetExceeded` and `OfflineMiss` must end the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import JsonValue

from rsearch_cli.errors import AccessDenied, OfflineMiss, ServiceFailure
from rsearch_cli.services.budget import Budget, Hold, ServiceSpend
from rsearch_cli.services.cache import AnswerCache, Entry, read_key
from rsearch_cli.services.outcomes import CallFailure, PermanentFailure, Reply
from rsearch_cli.services.retry import RetryPolicy
from rsearch_cli.services.singleflight import SingleFlight

Call = Callable[[], Awaitable[Reply]]

# How often a call that waits for others in flight looks whether one of them has ended.
_LOOK_AGAIN_SECONDS = 0.005


def _as_it_is(value: JsonValue) -> JsonValue:
    return value


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got.

    Attributes:
        value: The answer, as the caller reads it.
        cached: No call was made for it: it came from disk, or with an equal request under way.
        usd: What the calls for it cost, those that failed on the way included.
    """

    value: Any
    cached: bool
    usd: float


class ServiceClient:
    """Requests to one service, from any thread and any event loop.

    Attributes:
        service: Its name.
        budget: What its calls are paid from.
        denied: What the service said when it refused the key; nothing more is sent to it then.
    """

    def __init__(
        self, service: str, cache: AnswerCache, budget: Budget, flow: RetryPolicy | None
    ) -> None:
        """Bind what a service needs.

        Args:
            service: Its name in messages and in the budget.
            cache: Where its answers are kept.
            budget: What its calls are paid from.
            flow: How it is called; None for what answers within this process.
        """
        self.service = service
        self._cache = cache
        self.budget = budget
        self.denied: AccessDenied | None = None
        self._flow = flow
        # Beside the answers: a cache that is set aside must not take the locks with it.
        singleflight = cache.folder.with_name(f"{cache.folder.name}.flights")
        self._singleflight = SingleFlight(singleflight, across_processes=flow is not None)

    @property
    def may_send(self) -> bool:
        """Whether the service may be asked at all."""
        return self._cache.mode != "offline"

    async def fetch(
        self,
        key: str,
        call: Call,
        *,
        worst_usd: float = 0.0,
        ttl_seconds: float | None = None,
        read: Callable[[JsonValue], Any] = _as_it_is,
    ) -> Answer:
        """Get the answer to a request: from the cache, from an equal request under way, or by call.

        Args:
            key: Names the request; see `make_key`.
            call: Asks the service once; raises `TransientFailure`, `PermanentFailure` or
                `AccessDenied`. It may be called several times, and is not called on a hit.
            worst_usd: Most that one call can cost.
            ttl_seconds: How long the answer stays good; None is for ever.
            read: Turns an answer into what the caller uses; raises `ValueError` for one that is not
                valid. A new one has then failed, and a stored one is removed and asked for again.

        Raises:
            ServiceFailure: No answer, after all retries.
            AccessDenied: The service refuses the key or the account, now or before.
            BudgetExceeded: The call could pass the limit.
            OfflineMiss: There is no stored answer, and nothing may be sent.
        """
        if (known := self._recall(key, read)) is not None:
            return self._spare(known, read)
        if self._cache.mode == "offline" and self._flow is not None:
            raise OfflineMiss(_describe_miss(self.service, key))
        attempts = _Attempts(self, call, worst_usd)
        entry, _ = await self._singleflight.share(
            key, lambda: self._ask(key, attempts, ttl_seconds, read)
        )
        if attempts.sent:
            return Answer(read(entry.value), False, attempts.usd)
        return self._spare(entry, read)

    def _spare(self, entry: Entry, read: Callable[[JsonValue], Any]) -> Answer:
        self.budget.note(self.service, ServiceSpend(saved_usd=entry.usd, hits=1))
        return Answer(read(entry.value), True, 0.0)

    def _recall(self, key: str, read: Callable[[JsonValue], Any]) -> Entry | None:
        """Look a stored answer up; one that is not valid is removed, and as good as none."""
        entry = self._cache.find(key)
        if entry is None:
            return None
        try:
            read(entry.value)
        except ValueError as problem:
            self._cache.drop(key, problem)
            return None
        return entry

    async def _ask(
        self,
        key: str,
        attempts: _Attempts,
        ttl_seconds: float | None,
        read: Callable[[JsonValue], Any],
    ) -> Entry:
        # Another process may have been asking until now.
        if (known := self._recall(key, read)) is not None:
            return known
        try:
            if self._flow is None:
                attempts.pay()
                value = await attempts.send()
            else:
                value = await self._flow.run(attempts.send, attempts.wait_and_pay)
            _check(read, value)
            return self._cache.put(key, value, ttl_seconds, attempts.last_usd)
        except CallFailure as failure:
            self.budget.note(self.service, ServiceSpend(failed=1))
            tried = f" (tried {attempts.sent} times)" if attempts.sent > 1 else ""
            raise ServiceFailure(f"{failure}{tried}") from failure


class _Attempts:
    """The calls for one request, each paid for before it is sent.

    Attributes:
        sent: How many there were.
        usd: What they cost together, those that failed included.
        last_usd: What the last one cost.
    """

    def __init__(self, client: ServiceClient, call: Call, worst_usd: float) -> None:
        self._client = client
        self._call = call
        self._worst_usd = worst_usd
        self._reservation: Hold | None = None
        self.sent = 0
        self.usd = 0.0
        self.last_usd = 0.0

    def pay(self) -> None:
        """Put money by for the next call."""
        client = self._client
        self._reservation = client.budget.reserve(client.service, self._worst_usd)

    async def wait_and_pay(self) -> None:
        """Put money by for the next call, as soon as the budget allows one more in flight."""
        client = self._client
        budget = client.budget
        while True:
            settled = budget.settlements
            if client.denied is not None:
                raise client.denied
            self._reservation = budget.try_reserve(client.service, self._worst_usd)
            if self._reservation is not None:
                return
            while budget.settlements == settled:
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def send(self) -> JsonValue:
        """Make the call that was paid for."""
        hold, self._reservation = self._reservation, None
        assert hold is not None
        self.sent += 1
        # What is cut off, by a time-out or by the end of the run, may have been charged for.
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


def _check(read: Callable[[JsonValue], Any], value: JsonValue) -> None:
    """See that a new answer is valid, so that only valid ones are stored.

    Raises:
        PermanentFailure: It is not.
    """
    try:
        read(value)
    except ValueError as problem:
        raise PermanentFailure(f"the answer is not valid ({problem})") from problem


def _describe_miss(service: str, key: str) -> str:
    """Say in words what is not in the cache."""
    parts = read_key(key)
    asked = parts.get("query") or parts.get("question") or key
    return (
        f"{service} has no stored answer to {asked!r}, and cache.mode is offline: nothing is sent; "
        "import an export that holds it (rsearch cache import FILE), or run once with "
        "--set cache.mode=read-write"
    )
