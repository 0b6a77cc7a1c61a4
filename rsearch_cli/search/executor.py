"""The executor: carries search plans out.

Place in the path: between the plan and the result block; the rollout calls `PlanExecutor.execute`
once per batch. Every node starts as soon as its parents are done, all plans of a batch at once, and
asks through the client of its source's service. On failure: a `SourceError` (a `ServiceFailure` is
one) marks its node and is counted, the rest of the batch goes on. After `AccessDenied`,
`BudgetExceeded` or `OfflineMiss` no further node is searched; calls in flight end, so that what is
paid for is kept, and then it is raised. Any other exception is a bug and stops the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rsearch_cli.errors import AccessDenied, BudgetExceeded, OfflineMiss, SourceError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.cache_entries import (
    decode_passages,
    encode_passages,
    request_key,
    seconds_kept,
)
from rsearch_cli.search.expansion import expand
from rsearch_cli.search.sources import Found, SearchRequest, SearchSource
from rsearch_cli.services.client import Answer
from rsearch_cli.services.event_loop import EventLoop
from rsearch_cli.services.lifetime import Closing
from rsearch_cli.services.outcomes import PermanentFailure, Reply
from rsearch_cli.services.runtime import Services
from rsearch_cli.types import NodeResult, Passage, PlanNode, SearchPlan

_STOPS = (AccessDenied, BudgetExceeded, OfflineMiss)


@dataclass(frozen=True, slots=True)
class SearchCounts:
    """What an executor has done so far.

    Attributes:
        searches: Plan nodes carried out.
        cache_hits: Nodes that needed no search: known from before, or equal to one under way.
        sent: Nodes for which a source was asked.
        failed: Nodes whose source failed.
        seconds: Wall-clock time spent in `execute`.
    """

    searches: int = 0
    cache_hits: int = 0
    sent: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    passages: tuple[Passage, ...] = ()
    error: str | None = None
    cached: bool = False
    seconds: float = 0.0


class _Batch:
    """The tasks of one batch, who is told of its results, and what has put an end to it."""

    def __init__(
        self, group: asyncio.TaskGroup, on_result: Callable[[NodeResult], None] | None
    ) -> None:
        self.group = group
        self.on_result = on_result
        self.stop: AccessDenied | BudgetExceeded | OfflineMiss | None = None


class PlanExecutor(Closing):
    """Carries plans out against open sources, through the services of the run.

    One event loop lives as long as the executor, so that a source's client can keep its
    connections. Close the executor when done; sources and services belong to the caller.
    """

    def __init__(
        self, sources: Mapping[str, SearchSource], search: SearchConfig, services: Services
    ) -> None:
        """Take open sources by name, the recipe's section, and the run's services."""
        self._sources = sources
        self._settings = search
        self._services = services
        self._loop = EventLoop("searches")
        self._counts = SearchCounts()

    @property
    def counts(self) -> SearchCounts:
        """Totals over all batches so far."""
        return self._counts

    def execute(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> list[tuple[NodeResult, ...]]:
        """Carry out the plans of a batch at once.

        Args:
            plans: Valid plans: acyclic, and naming open sources only.
            on_result: Told every result as soon as it is there, in another thread.

        Returns:
            One tuple a plan, in order, with one result a node, in plan order.

        Raises:
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A search could pass the budget.
            OfflineMiss: A search is not in the cache, and nothing may be sent.
            CancelledError: `cancel` was called.
            KeyboardInterrupt: Ctrl-C; what was under way had `services.loop.PATIENCE_SECONDS`.
        """
        started = time.perf_counter()
        results = self._loop.run(self._run_batch(plans, on_result))
        self._count([r for plan in results for r in plan], time.perf_counter() - started)
        return results

    def cancel(self, patience: float = 0.0) -> None:
        """Give up the batch that another thread is carrying out, if there is one.

        Calls in flight are cut off; the budget takes them for paid.

        Args:
            patience: Seconds that it may go on; the person is told of that.
        """
        self._loop.cancel(patience)

    def close(self) -> None:
        """Close the event loop; the executor cannot be used afterwards."""
        self._loop.close()

    async def _run_batch(
        self, plans: Sequence[SearchPlan], on_result: Callable[[NodeResult], None] | None
    ) -> list[tuple[NodeResult, ...]]:
        try:
            async with asyncio.TaskGroup() as group:
                batch = _Batch(group, on_result)
                tasks = [self._start_plan(batch, plan) for plan in plans]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if batch.stop is not None:
            raise batch.stop
        return [tuple(task.result() for task in nodes) for nodes in tasks]

    def _start_plan(self, batch: _Batch, plan: SearchPlan) -> list[asyncio.Task[NodeResult]]:
        """Start a task for every node; a child's task begins by waiting for its parents'."""
        tasks: dict[str, asyncio.Task[NodeResult]] = {}
        for wave in plan.waves():
            for node in wave:
                parents = [tasks[label] for label in plan.parents(node.label)]
                tasks[node.label] = batch.group.create_task(self._run_node(batch, node, parents))
        return [tasks[node.label] for node in plan.nodes]

    async def _run_node(
        self, batch: _Batch, node: PlanNode, parents: list[asyncio.Task[NodeResult]]
    ) -> NodeResult:
        found = [await parent for parent in parents]
        settings = self._settings
        expansion = expand(node.query, found, settings.expand_dependents, settings.expand_from_top)
        request = SearchRequest(node.query, expansion, settings.top_k, settings.own_words_weight)
        outcome = await self._find(batch, node.source, request)
        result = NodeResult(
            node, expansion, outcome.passages, outcome.error, outcome.cached, outcome.seconds
        )
        if batch.on_result and batch.stop is None:
            batch.on_result(result)
        return result

    async def _find(self, batch: _Batch, name: str, request: SearchRequest) -> _Outcome:
        if batch.stop is not None:
            return _Outcome(error="the run is stopping")
        took: list[float] = []
        source, settings = self._sources[name], self._settings.sources[name]
        try:
            answer = await self._fetch(source, settings, request, took)
            return _Outcome(answer.value, None, answer.cached, sum(took[-1:]))
        except _STOPS as stop:
            batch.stop = batch.stop or stop
            return _Outcome(error=str(stop))
        except SourceError as error:
            return _Outcome(error=" ".join(str(error).split()), seconds=sum(took[-1:]))

    async def _fetch(
        self,
        source: SearchSource,
        settings: SourceConfig,
        request: SearchRequest,
        took: list[float],
    ) -> Answer:
        """Ask a source through its client; the seconds of every attempt go into `took`."""
        price = self._settings.usd_per_search if source.service else 0.0
        usd = getattr(source, "usd_per_search", price)
        # Requests that the source cannot tell apart get one key, and so are sent once.
        request = getattr(source, "simplify", lambda request: request)(request)

        async def call() -> Reply:
            started = time.perf_counter()
            try:
                found = await source.search(request)
            finally:
                took.append(time.perf_counter() - started)
            if not isinstance(found, Found):
                found = Found(found, usd)
            try:
                return Reply(encode_passages(found.passages, request.top_k), found.usd)
            except ValueError as error:
                kind = source.fingerprint.partition("/")[0]
                raise PermanentFailure(f"the source {kind} returned {error}") from error

        return await self._services.client(source.service).fetch(
            request_key(source.fingerprint, request),
            call,
            read=lambda value: decode_passages(value, request.top_k),
            worst_usd=usd,
            ttl_seconds=seconds_kept(source, settings),
        )

    def _count(self, results: list[NodeResult], seconds: float) -> None:
        before = self._counts
        failed = sum(r.error is not None for r in results)
        hits = sum(r.cached for r in results)
        self._counts = SearchCounts(
            searches=before.searches + len(results),
            cache_hits=before.cache_hits + hits,
            sent=before.sent + len(results) - hits,
            failed=before.failed + failed,
            seconds=before.seconds + seconds,
        )
