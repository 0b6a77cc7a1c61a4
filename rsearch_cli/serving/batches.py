"""Requests on local weights: those that are ready for their next turn share a batch.

One thread generates. A turn ends when each row has reached its next tag; then requests with a plan
are searched for while others are generated, finished ones leave, and those that have come meanwhile
are next.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rsearch_cli.errors import OutOfMemory, is_shortage
from rsearch_cli.policy.generation import Generation
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.state import PendingSearch, RolloutState, count_fitting
from rsearch_cli.rollout.turns import halve
from rsearch_cli.services.budget import billed_to
from rsearch_cli.services.event_loop import working_for
from rsearch_cli.serving.job import JOIN_SECONDS, Job, JobSteps
from rsearch_cli.serving.queue import RequestQueue
from rsearch_cli.serving.requests import Ticket
from rsearch_cli.types import FollowUp

IN_FLIGHT = 2
"""Requests in work per row of a batch: some are searched for while as many others generate."""

GATHER_SECONDS = 0.02
"""How long a batch waits for searches if more requests are searched for than are ready."""

FULL_AGAIN = 32
"""After a shortage of memory, this many batches have half the rows, or fewer."""

# Threads that wait for a server which rewrites questions and writes paragraphs.
_WRITERS = 8

T = TypeVar("T")

logger = logging.getLogger(__name__)


class BatchWorker:
    """Answers requests with a policy on local weights, in a thread of its own.

    Args:
        steps: Its agent's policy is a `LocalPolicy`.
        queue: Where the requests come from.
        max_batch: Most rows of a batch.
    """

    def __init__(self, steps: JobSteps, queue: RequestQueue, max_batch: int) -> None:
        policy = steps.agent.policy
        assert isinstance(policy, LocalPolicy)
        self._agent = steps.agent
        self._policy = policy
        self._queue = queue
        self._max_batch = max_batch
        self._halved_to: int | None = None
        self._since_halved = 0
        self._steps = steps
        self._jobs: list[Job] = []
        self._caches: list[PrefixCache] = []
        self._writers = ThreadPoolExecutor(_WRITERS, "serving-writer")
        self._thread = threading.Thread(target=self._run, name="serving", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended, for some seconds; the queue is closed."""
        self._thread.join(JOIN_SECONDS)
        self._writers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while not self._queue.closed or self._jobs:
            with self._queue.changed:
                self._queue.changed.wait_for(self._has_work)
                self._queue.changed.wait_for(self._is_worth_a_batch, GATHER_SECONDS)
                tickets = self._queue.take(self._room)
            try:
                self._step(tickets)
            except (CancelledError, asyncio.CancelledError):
                self._abandon(list(self._jobs))
            except Exception as error:
                self._fail(list(self._jobs), error)
            self._limit_caches()

    def _step(self, tickets: Sequence[Ticket]) -> None:
        """Take up new requests and those that have waited, and generate those that are ready."""
        for ticket in tickets:
            try:
                job = self._steps.open(ticket)
            except Exception as error:
                self._queue.fail(ticket, error)
                continue
            self._jobs.append(job)
            with self._isolating(job):
                self._open(job)
        self._go_on()
        if batch := self._choose():
            self._generate(batch)

    @property
    def _rows(self) -> int:
        return min(self._max_batch, self._halved_to or self._max_batch)

    @property
    def _room(self) -> int:
        return max(0, IN_FLIGHT * self._rows - len(self._jobs))

    def _has_work(self) -> bool:
        return (
            self._queue.closed
            or (self._queue.waiting > 0 and self._room > 0)
            or any(job.waits_for is None or job.waits_for.done() for job in self._jobs)
            or any(job.ticket.is_over for job in self._jobs)
        )

    def _is_worth_a_batch(self) -> bool:
        """Whether most requests are ready; more rows cost little more than one."""
        pending = sum(job.waits_for is not None and not job.waits_for.done() for job in self._jobs)
        new = min(self._queue.waiting, self._room)
        return self._queue.closed or 2 * pending <= len(self._jobs) + new

    def _open(self, job: Job) -> None:
        """Start a request; its question is rewritten first if it follows others."""
        if self._steps.needs_condensing(job):
            self._write(job, partial(self._steps.condense, job), partial(self._start, job))
        else:
            self._start(job, FollowUp(job.ticket.request.question))

    def _start(self, job: Job, asked: FollowUp) -> None:
        self._steps.start(job, asked)

    def _go_on(self) -> None:
        """Let go of cancelled requests, and take up those whose search or writing is done."""
        for job in list(self._jobs):
            if job.ticket.is_over:
                self._abandon([job])
            elif job.waits_for is not None and job.waits_for.done():
                then, job.waits_for, job.then = job.then, None, None
                with self._isolating(job):
                    if then:
                        then()

    def _choose(self) -> list[Job]:
        """Return the requests for the next batch: those in the round of the oldest that is ready.

        A turn lasts until its longest text is written. Plans are longer than answers, so requests
        in different rounds would wait for each other.
        """
        ready = [job for job in self._jobs if job.waits_for is None]
        if not ready:
            return []
        searches = len(_state(ready[0]).rounds)
        ready = [job for job in ready if len(_state(job).rounds) == searches]
        states = [_state(job) for job in ready]
        tokens = self._agent.recipe.rollout.micro_batch_tokens
        return ready[: count_fitting(states, self._rows, tokens)]

    def _generate(self, batch: list[Job]) -> None:
        """Generate the next turn of some requests, and start what follows it."""
        turns = self._steps.turns
        cache = self._take_cache(batch)
        rows = [turns.row(_state(job), job.sampling, _is_over(job)) for job in batch]
        try:
            generations = self._policy.generate_rows(rows, cache)
        except OutOfMemory as error:
            self._halve(batch, error)
            return
        except Exception as error:
            self._fail(batch, error)
            return
        self._grow()
        counters = self._queue.counters
        counters.batches += 1
        counters.rows += len(batch)
        counters.largest_batch = max(counters.largest_batch, len(batch))
        for row, job in enumerate(batch):
            job.cache, job.row = cache, row
        for job, generation in zip(batch, generations, strict=True):
            if not job.ticket.is_over:
                with self._isolating(job):
                    self._record(job, generation)

    def _take_cache(self, batch: list[Job]) -> PrefixCache | None:
        """Return the keys and values of a batch, and bring its rows into their order."""
        if not self._agent.recipe.rollout.reuse_cache:
            return None
        caches = list(dict.fromkeys(job.cache for job in batch if job.cache is not None))
        batch.sort(key=lambda job: (caches.index(job.cache) if job.cache else -1, job.row))
        cache = caches[0] if len(caches) == 1 else _join(caches)
        if cache not in self._caches:
            self._caches.append(cache)
        return cache

    def _limit_caches(self) -> None:
        """Drop keys and values of finished requests, and the oldest if too many are kept."""
        used = {job.cache for job in self._jobs}
        for cache in self._caches:
            if cache not in used:
                cache.clear()
        self._caches = [cache for cache in self._caches if cache.size]
        while sum(cache.size for cache in self._caches) > IN_FLIGHT * self._rows:
            self._caches.pop(0).clear()

    def _halve(self, batch: Sequence[Job], error: OutOfMemory) -> None:
        """Generate fewer rows at a time from now on; a single row that does not fit fails."""
        settings = self._agent.recipe.rollout
        while self._caches:
            self._caches.pop().clear()
        try:
            self._halved_to = halve(len(batch), len(batch), None, settings, error)
        except OutOfMemory as final:
            self._fail(batch, final)
        self._since_halved = 0

    def _grow(self) -> None:
        """Return to the full size some batches after memory ran out."""
        self._since_halved += 1
        if self._halved_to is not None and self._since_halved >= FULL_AGAIN:
            self._halved_to = None
            logger.info(f"generating at most {self._max_batch} at a time again")

    def _record(self, job: Job, generation: Generation) -> None:
        state, turns = _state(job), self._steps.turns
        turns.record(state, generation)
        if state.stop is not None:
            self._finish(job)
            return
        with billed_to(job.bill):
            search = turns.search([state])
        self._wait(job, search.results, partial(self._insert, job, search))

    def _insert(self, job: Job, search: PendingSearch) -> None:
        self._steps.turns.insert_results(search)
        if _state(job).stop is not None:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        answer = self._steps.answer(job)
        if self._steps.needs_paragraph(job):
            write = partial(self._steps.write_paragraph, answer)
            self._write(job, write, partial(self._close, job))
        else:
            self._close(job, answer)

    def _close(self, job: Job, answer: AgentAnswer) -> None:
        self._leave(job)
        self._queue.finish(job.ticket, self._steps.close(job, answer))

    def _write(self, job: Job, write: Callable[[], T], then: Callable[[T], None]) -> None:
        """Let the agent's writer write: here if it needs the weights, else in another thread."""
        if job.ticket.is_over:
            return
        with billed_to(job.bill), working_for(job.ticket):
            if self._agent.writer_is_local or not self._agent.can_write:
                then(write())
                return
            future = self._writers.submit(contextvars.copy_context().run, write)
        self._wait(job, future, lambda: then(future.result()))

    def _wait(self, job: Job, future: Future[T], then: Callable[[], None]) -> None:
        job.waits_for, job.then = future, then
        job.ticket.depend_on(future)
        future.add_done_callback(lambda _: self._queue.wake())

    def _leave(self, job: Job) -> None:
        self._jobs.remove(job)

    def _fail(self, batch: Sequence[Job], error: Exception) -> None:
        for job in batch:
            if job in self._jobs:
                self._leave(job)
                self._queue.fail(job.ticket, error)

    def _abandon(self, batch: Sequence[Job]) -> None:
        for job in batch:
            if job in self._jobs:
                self._leave(job)
                self._queue.abandon(job.ticket)

    @contextmanager
    def _isolating(self, job: Job) -> Iterator[None]:
        """Let an error inside the block end this request only."""
        try:
            yield
        except (CancelledError, asyncio.CancelledError):
            self._abandon([job])
        except Exception as error:
            self._fail([job], error)


def _state(job: Job) -> RolloutState:
    assert job.state is not None
    return job.state


def _is_over(job: Job) -> Callable[[], bool]:
    return lambda: job.ticket.is_over


def _join(caches: Sequence[PrefixCache]) -> PrefixCache:
    """Join caches; without the memory for it, all rows are encoded again."""
    try:
        return PrefixCache.join(caches)
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        return PrefixCache()
