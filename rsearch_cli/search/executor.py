"""The executor: carries search plans out.

Place in the path: between the plan and the result block; the rollout calls `PlanExecutor.execute`
once per batch. Every node starts as soon as its parents are done, all plans of a batch at once.
On failure: a `SourceError` marks its node and is counted, the rest of the batch goes on and nothing
of it is stored; any other exception is a bug and stops the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rsearch_cli.errors import SourceError
from rsearch_cli.recipe.schema import Search
from rsearch_cli.search.cache import SearchCache, request_key
from rsearch_cli.search.expansion import expand
from rsearch_cli.search.sources import SearchRequest, SearchSource
from rsearch_cli.types import NodeResult, Passage, PlanNode, SearchPlan


@dataclass(frozen=True, slots=True)
class SearchCounts:
    """What an executor has done so far.

    Attributes:
        searches: Plan nodes carried out.
        cache_hits: Nodes answered from the disk cache.
        sent: Requests that went to a source; equal ones of a batch are sent once.
        failed: Nodes whose source failed.
        seconds: Wall-clock time spent in `execute`.
    """

    searches: int = 0
    cache_hits: int = 0
    sent: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    passages: tuple[Passage, ...] = ()
    error: str | None = None
    cached: bool = False


class _Batch:
    """The tasks of one batch, and the requests that it has under way or behind it."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.group = group
        self.answers: dict[str, asyncio.Task[_Answer]] = {}


class PlanExecutor:
    """Carries plans out against open sources, through the cache.

    One event loop lives as long as the executor, so that a source's client can keep its
    connections. Close the executor when done; the sources and the cache belong to the caller.
    """

    def __init__(
        self, sources: Mapping[str, SearchSource], search: Search, cache: SearchCache | None
    ) -> None:
        """Take open sources by name, the recipe's section, and the cache or None for no cache."""
        self._sources = sources
        self._settings = search
        self._cache = cache
        self._runner = asyncio.Runner()
        self._slots = asyncio.Semaphore(search.concurrency)
        self._sent = 0
        self._counts = SearchCounts()

    @property
    def counts(self) -> SearchCounts:
        """Totals over all batches so far."""
        return self._counts

    def execute(self, plans: Sequence[SearchPlan]) -> list[tuple[NodeResult, ...]]:
        """Carry out the plans of a batch at once.

        Args:
            plans: Valid plans: acyclic, and naming open sources only.

        Returns:
            One tuple a plan, in order, with one result a node, in plan order.
        """
        started = time.perf_counter()
        results = self._runner.run(self._run_batch(plans))
        self._count([r for plan in results for r in plan], time.perf_counter() - started)
        return results

    def close(self) -> None:
        """Close the event loop; the executor cannot be used afterwards."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _run_batch(self, plans: Sequence[SearchPlan]) -> list[tuple[NodeResult, ...]]:
        try:
            async with asyncio.TaskGroup() as group:
                batch = _Batch(group)
                tasks = [self._start_plan(batch, plan) for plan in plans]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
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
        source = self._sources[node.source]
        key = request_key(source.fingerprint, request)
        if key not in batch.answers:
            batch.answers[key] = batch.group.create_task(self._answer(source, request, key))
        answer = await batch.answers[key]
        return NodeResult(node, expansion, answer.passages, answer.error, answer.cached)

    async def _answer(self, source: SearchSource, request: SearchRequest, key: str) -> _Answer:
        known = None if self._cache is None else self._cache.get(key)
        if known is not None:
            return _Answer(known, cached=True)
        async with self._slots:
            self._sent += 1
            try:
                passages = tuple(await source.search(request))
            except SourceError as error:
                return _Answer(error=" ".join(str(error).split()))
        if self._cache is not None:
            self._cache.put(key, passages)
        return _Answer(passages)

    def _count(self, results: list[NodeResult], seconds: float) -> None:
        before = self._counts
        self._counts = SearchCounts(
            searches=before.searches + len(results),
            cache_hits=before.cache_hits + sum(r.cached for r in results),
            sent=self._sent,
            failed=before.failed + sum(r.error is not None for r in results),
            seconds=before.seconds + seconds,
        )
