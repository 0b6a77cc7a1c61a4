"""Rollouts of a fixed list of questions, for training, evaluation and inference.

Two micro-batches take turns, so that one is searched for while the other is generated:

    generate A1   generate B1   generate A2   generate B2   generate C1 ...
                  search A      search B

The order never depends on how long a search takes, so random numbers are always drawn in the same
order. The steps themselves are in `rollout.turns`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from rsearch_cli.errors import OutOfMemory
from rsearch_cli.policy.generation import Policy, Sampling
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.state import (
    Executor,
    MicroBatch,
    Observer,
    PlanResults,
    RolloutState,
    count_fitting,
)
from rsearch_cli.rollout.turns import Turns, halve, make_on_text
from rsearch_cli.services.event_loop import (
    GRACE_SECONDS,
    StopNow,
    wait_until_done,
)
from rsearch_cli.types import Question, Trajectory

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 2
"""Micro-batches that take turns; a third would hide no more search time, and cost its KV cache."""


@dataclass(slots=True)
class RolloutTimes:
    """Wall-clock seconds that rollouts took, accumulated over calls.

    Attributes:
        generate: Spent in the policy.
        search: Spent waiting for searches; what overlaps with generation is not counted.
    """

    generate: float = 0.0
    search: float = 0.0

    def copy(self) -> RolloutTimes:
        """Return a snapshot."""
        return RolloutTimes(self.generate, self.search)


class Rollout:
    """Rolls questions out to trajectories with one policy and one search layer.

    Args:
        policy: Generates.
        executor: Searches.
        recipe: Its protocol, search, rollout and policy sections are read.
        observer: Follows the rollout. Only one question can be asked at a time then, and Ctrl-C
            cancels the search in flight instead of letting it finish.

    Attributes:
        times: Seconds by part since the rollout was created.
        halved_to: Maximum rows of a micro-batch after running out of memory once; None before.
    """

    def __init__(
        self,
        policy: Policy,
        executor: Executor,
        recipe: Recipe,
        observer: Observer | None = None,
    ) -> None:
        self.policy = policy
        self.executor = executor
        self.recipe = recipe
        self._turns = Turns(policy, executor, recipe)
        self.observer = observer
        self.times = RolloutTimes()
        self.halved_to: int | None = None

    def run(
        self,
        questions: Sequence[Question],
        sampling: Sampling,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Generate one completion per question; repeat a question to sample it several times.

        Args:
            questions: `[B]` questions.
            sampling: Greedy or sampled.
            on_done: Called with the number of finished questions after each micro-batch.

        Returns:
            `[B]` trajectories, in order.

        Raises:
            PolicyError: A prompt leaves no room for an answer.
            OutOfMemory: Memory ran out for the second time, or for a single completion.
            ValueError: An observer with more than one question.
            KeyboardInterrupt: Ctrl-C; searches in flight had `GRACE_SECONDS` to finish.
        """
        if self.observer and len(questions) > 1:
            raise ValueError(f"an observer follows one question, not {len(questions)}")
        states = [self._turns.start(question, self.observer) for question in questions]
        searches: list[Future[PlanResults]] = []
        with self._settling(searches):
            self._finish_all(states, sampling, searches, on_done)
        return [state.finish(self.policy.eos_id) for state in states]

    @contextmanager
    def _settling(self, searches: Sequence[Future[PlanResults]]) -> Iterator[None]:
        """Let searches in flight finish if the block fails, because they may be paid for.

        After Ctrl-C they have `GRACE_SECONDS`; with an observer, or after the second Ctrl-C,
        they are cancelled at once.
        """
        try:
            try:
                yield
            except Exception:
                wait_until_done(searches)
                raise
        except KeyboardInterrupt as stop:
            at_once = self.observer is not None or isinstance(stop, StopNow)
            self.executor.cancel(0.0 if at_once else GRACE_SECONDS)
            raise

    def _finish_all(
        self,
        states: Sequence[RolloutState],
        sampling: Sampling,
        searches: list[Future[PlanResults]],
        on_done: Callable[[int], None] | None,
    ) -> None:
        """Finish all rollouts, in micro-batches that take turns."""
        waiting, in_flight = deque(states), deque[MicroBatch]()
        done = 0
        while waiting or in_flight:
            while waiting and len(in_flight) < MAX_IN_FLIGHT:
                in_flight.append(self._next_batch(waiting))
            batch = in_flight.popleft()
            self._insert_results(batch)
            if batch.active and not self._generate(batch, sampling):
                in_flight = self._split([batch, *in_flight])
            elif batch.active:
                self._search(batch, searches)
                in_flight.append(batch)
            else:
                done += len(batch.states)
                if on_done:
                    on_done(done)

    def _next_batch(self, waiting: deque[RolloutState]) -> MicroBatch:
        """Take as many rollouts as the recipe allows at a time."""
        settings = self.recipe.rollout
        rows = min(settings.micro_batch, self.halved_to or settings.micro_batch)
        count = count_fitting(waiting, rows, settings.micro_batch_tokens)
        return self._make_batch([waiting.popleft() for _ in range(count)])

    def _make_batch(self, states: list[RolloutState]) -> MicroBatch:
        return MicroBatch(states, PrefixCache() if self.recipe.rollout.reuse_cache else None)

    def _generate(self, batch: MicroBatch, sampling: Sampling) -> bool:
        """Continue every active rollout up to its next tag, and mark those that are finished.

        Returns:
            False if memory ran out for the first time; nothing has changed then.
        """
        states = batch.active
        started = time.perf_counter()
        try:
            generations = self.policy.generate(
                [state.context for state in states],
                self._turns.stops(states[0]),
                [state.budget for state in states],
                sampling,
                batch.cache,
                make_on_text(states[0]),
            )
        except OutOfMemory as error:
            self.halved_to = halve(
                len(batch.active), len(batch.states), self.halved_to, self.recipe.rollout, error
            )
            return False
        finally:
            self.times.generate += time.perf_counter() - started
        for state, generation in zip(states, generations, strict=True):
            self._turns.record(state, generation)
        return True

    def _split(self, batches: Sequence[MicroBatch]) -> deque[MicroBatch]:
        """Split micro-batches in two, once their searches are done; their caches are dropped."""
        halves = deque[MicroBatch]()
        for batch in batches:
            self._insert_results(batch)
            active = batch.active
            finished = [state for state in batch.states if state.stop is not None]
            middle = (len(active) + 1) // 2
            parts = (finished + active[:middle], active[middle:])
            halves.extend(self._make_batch(part) for part in parts if part)
        return halves

    def _search(self, batch: MicroBatch, searches: list[Future[PlanResults]]) -> None:
        """Start executing the plans that the active rollouts have just closed."""
        batch.search = self._turns.search(batch.active)
        searches.append(batch.search.results)

    def _insert_results(self, batch: MicroBatch) -> None:
        """Wait for a micro-batch's search, and append its results to the rollouts."""
        search, batch.search = batch.search, None
        if search is None:
            return
        started = time.perf_counter()
        wait_until_done([search.results])
        self.times.search += time.perf_counter() - started
        self._turns.insert_results(search)
