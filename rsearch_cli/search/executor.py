"""Executes search plans: every node starts as soon as its parents are done, all plans at once.

A `SourceError` marks its own node and nothing else. After `AccessDenied`, `BudgetExceeded` or
`OfflineMiss` no further node is searched; calls in flight finish first, because they are paid for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsearch_cli.errors import AccessDenied, BudgetExceeded, OfflineMiss, SourceError
from rsearch_cli.recipe.schema import Recipe, SearchConfig
from rsearch_cli.search.cache_entries import (
    decode_passages,
    encode_passages,
    request_key,
    seconds_kept,
)
from rsearch_cli.search.expansion import expand, read_mentions
from rsearch_cli.search.prices import find_charge, usd_per_search
from rsearch_cli.search.sources import Found, SearchRequest, SearchSource, open_sources
from rsearch_cli.services.client import Answer
from rsearch_cli.services.event_loop import finish_all
from rsearch_cli.services.outcomes import PermanentFailure, Reply
from rsearch_cli.services.runtime import Services
from rsearch_cli.types import NodeResult, Passage, PlanNode, SearchPlan

if TYPE_CHECKING:
    from rsearch_cli.search.page_reader import PageReader

_STOPS = (AccessDenied, BudgetExceeded, OfflineMiss)

OnResult = Callable[[NodeResult], None]
"""Called with every result as soon as it is there, on the thread of the event loop."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    passages: tuple[Passage, ...] = ()
    error: str | None = None
    cached: bool = False
    seconds: float = 0.0
    unread: tuple[str, ...] = ()


class _Batch:
    """The tasks of one batch, the callback for its results, and the error that ended it."""

    def __init__(self, group: asyncio.TaskGroup, on_result: OnResult | None) -> None:
        self.group = group
        self.on_result = on_result
        self.stop: AccessDenied | BudgetExceeded | OfflineMiss | None = None


class PlanExecutor(AbstractContextManager["PlanExecutor"]):
    """Executes plans against open sources, on the event loop of the services.

    Args:
        sources: Open sources by name; their connections are closed with the executor.
        search: The recipe's section.
        services: The services of the run.
    """

    def __init__(
        self, sources: Mapping[str, SearchSource], search: SearchConfig, services: Services
    ) -> None:
        self._sources = sources
        self._settings = search
        self._services = services
        self._usd = {name: usd_per_search(name, search, source) for name, source in sources.items()}
        self._reader: PageReader | None = None
        if search.read_top:
            from rsearch_cli.search.page_reader import PageReader

            self._reader = PageReader(search, services)

    def submit(
        self, plans: Sequence[SearchPlan], on_result: OnResult | None = None
    ) -> Future[list[tuple[NodeResult, ...]]]:
        """Start the plans of a batch; see `execute` for the future's result and errors."""
        return self._services.loop.submit(self._run_batch(plans, on_result))

    def execute(
        self, plans: Sequence[SearchPlan], on_result: OnResult | None = None
    ) -> list[tuple[NodeResult, ...]]:
        """Execute the plans of a batch at once.

        Args:
            plans: Valid plans: acyclic, and naming open sources only.
            on_result: Called with every result as soon as it is there, on another thread.

        Returns:
            One tuple per plan, in order, with one result per node, in plan order.

        Raises:
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A search could exceed the budget.
            OfflineMiss: A search is not in the cache, and the cache mode is offline.
            KeyboardInterrupt: Ctrl-C; calls in flight had `GRACE_SECONDS` to finish.
        """
        return self._services.loop.run(self._run_batch(plans, on_result))

    def cancel(self, grace: float = 0.0) -> None:
        """Cancel everything in flight; the budget counts cancelled calls as paid.

        Args:
            grace: Seconds to let it finish first.
        """
        self._services.loop.cancel(grace)

    def close(self) -> None:
        """Close the connections of the sources."""
        self._services.loop.finish(self._close_sources())

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _close_sources(self) -> None:
        opened: list[SearchSource | PageReader] = list(dict.fromkeys(self._sources.values()))
        opened += [self._reader] if self._reader else []
        await finish_all(one.close() for one in opened)

    async def _run_batch(
        self, plans: Sequence[SearchPlan], on_result: OnResult | None
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
        """Start a task for every node; the task of a child first awaits those of its parents."""
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
        mode, from_top = settings.expand_dependents, settings.expand_from_top
        expansion = expand(node.query, found, mode, from_top)
        linked = mode == "linked"
        request = SearchRequest(
            node.query,
            expansion,
            settings.top_k,
            settings.own_words_weight,
            match_titles=linked,
            mentions=read_mentions(found, from_top) if linked else (),
        )
        outcome = await self._find(batch, node.source, request)
        result = NodeResult(
            node,
            expansion,
            outcome.passages,
            outcome.error,
            outcome.cached,
            outcome.seconds,
            outcome.unread,
        )
        if batch.on_result and batch.stop is None:
            batch.on_result(result)
        return result

    async def _find(self, batch: _Batch, name: str, request: SearchRequest) -> _Outcome:
        if batch.stop is not None:
            return _Outcome(error="the run is stopping")
        took: list[float] = []
        try:
            answer = await self._fetch(name, request, took)
            outcome = _Outcome(answer.value, None, answer.cached, sum(took[-1:]))
            return outcome if self._reader is None else await self._read(name, request, outcome)
        except _STOPS as stop:
            batch.stop = batch.stop or stop
            return _Outcome(error=str(stop))
        except SourceError as error:
            return _Outcome(error=" ".join(str(error).split()), seconds=sum(took[-1:]))

    async def _read(self, name: str, request: SearchRequest, found: _Outcome) -> _Outcome:
        """Read the pages of hits that are too short."""
        assert self._reader is not None
        source = self._sources[name]
        kept = seconds_kept(source, self._settings.sources[name])
        started = time.perf_counter()
        hits, unread = await self._reader.read(source, request, found.passages, kept)
        seconds = found.seconds + time.perf_counter() - started
        return replace(found, passages=hits, unread=unread, seconds=seconds)

    async def _fetch(self, name: str, request: SearchRequest, took: list[float]) -> Answer:
        """Ask a source through its client; `took` collects the seconds of every attempt."""
        source = self._sources[name]
        usd = self._usd[name]
        # Requests that the source cannot tell apart get one key, and so are sent once.
        request = source.simplify(request)

        async def call() -> Reply:
            started = time.perf_counter()
            try:
                found = await source.search(request)
            finally:
                took.append(time.perf_counter() - started)
            if not isinstance(found, Found):
                found = Found(found, usd)
            try:
                passages = encode_passages(found.passages, request.top_k)
                return Reply(passages, find_charge(found, usd))
            except ValueError as error:
                kind = source.fingerprint.partition("/")[0]
                raise PermanentFailure(f"the source {kind} returned {error}") from error

        return await self._services.client(source.service, source.limits).fetch(
            request_key(source.fingerprint, request),
            call,
            read=lambda value: decode_passages(value, request.top_k),
            worst_usd=usd,
            ttl_seconds=seconds_kept(source, self._settings.sources[name]),
        )


def open_executor(
    recipe: Recipe, corpus: Callable[[], Iterable[Passage]], services: Services
) -> PlanExecutor:
    """Open the sources of a recipe and return the executor that runs plans on them.

    Args:
        recipe: Its search and cache sections are read.
        corpus: Returns the passages that come with the question set.
        services: The services of the run; the caller closes the executor before them.
    """
    sources = open_sources(recipe.search, corpus, offline=recipe.cache.mode == "offline")
    return PlanExecutor(sources, recipe.search, services)
