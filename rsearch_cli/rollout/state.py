"""Trajectories in the making, their micro-batches, who searches for them and who looks on.

Place in the path: `rollout` moves drafts from question to answer; here is what it moves. On
failure: nothing here fails; a draft that fits no bound makes a micro-batch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Literal, Protocol, Self

from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.services.event_loop import PATIENCE_SECONDS, StopNow, wait_for
from rsearch_cli.types import (
    NodeResult,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

_CANCEL_AGAIN_SECONDS = 0.05


class Executor(Protocol):
    """What a rollout needs of the search layer (see `search.executor.PlanExecutor`)."""

    def execute(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> list[tuple[NodeResult, ...]]:
        """Carry plans out; one tuple a plan, one result a node, which `on_result` is told first."""
        ...

    def cancel(self, patience: float = 0.0) -> None:
        """Give up what is being carried out in another thread, after `patience` seconds."""
        ...


class Observer(Protocol):
    """Who looks on while one question is answered, such as a person's screen."""

    def wrote(self, text: str) -> None:
        """Told all that the model has written since the last results, again and again.

        Each text continues the one before, unless a server had to be asked anew. The last one is
        what the trajectory keeps.
        """
        ...

    def planned(self, reading: PlanReading) -> None:
        """Told once that a `<search>` is closed; the search starts now, if there is a plan."""
        ...

    def found(self, result: NodeResult) -> None:
        """Told as soon as a node of the plan is done; comes from another thread."""
        ...


@dataclass(slots=True)
class RolloutState:
    """A trajectory in the making.

    Attributes:
        budget: Tokens that the policy may still write.
    """

    question: Question
    prompt_ids: list[int]
    opening: str
    budget: int
    segments: list[Segment] = field(default_factory=list)
    rounds: list[SearchRound] = field(default_factory=list)
    answer: str | None = None
    stop: Literal["answer", "eos", "length"] | None = None

    @property
    def context(self) -> list[int]:
        """`[p + l]` everything the model sees next."""
        return self.prompt_ids + [i for segment in self.segments for i in segment.token_ids]

    def finish(self, eos_id: int) -> Trajectory:
        """Close the row: it ends in eos, which is masked unless the model wrote it itself.

        TRL takes a completion whose last id is another for a truncated one; whether it really was
        is kept in `Trajectory.stop`.
        """
        assert self.stop is not None
        if not self.segments or self.segments[-1].token_ids[-1:] != (eos_id,):
            self.segments.append(Segment("", (eos_id,), "system"))
        return Trajectory(
            question=self.question,
            prompt_ids=tuple(self.prompt_ids),
            opening=self.opening,
            segments=tuple(self.segments),
            rounds=tuple(self.rounds),
            answer=self.answer,
            stop=self.stop,
        )


class Searches:
    """The thread that searches while the policy writes, for one micro-batch after another.

    Leaving its block waits for the search under way, because what is paid for is kept; none is
    begun any more. Ctrl-C leaves it some seconds, and none if a person looks on.

    Args:
        executor: Carries the plans out.
        observer: Told of the results, if there is one.
    """

    def __init__(self, executor: Executor, observer: Observer | None) -> None:
        self._executor = executor
        self._observer = observer
        self._thread = ThreadPoolExecutor(1, "search")
        self._over = False

    def begin(self, plans: Sequence[SearchPlan]) -> Future[list[tuple[NodeResult, ...]]]:
        """Have plans carried out, after those that were begun before."""
        return self._thread.submit(self._search, plans)

    def _search(self, plans: Sequence[SearchPlan]) -> list[tuple[NodeResult, ...]]:
        if self._over:
            return []  # nobody asks for it any more
        if self._observer:
            return self._executor.execute(plans, self._observer.found)
        return self._executor.execute(plans)

    def __enter__(self) -> Self:
        # An interrupt while it starts its thread makes a pool forget the thread and what it does.
        self._thread.submit(int).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over = True
        last = self._thread.submit(int)
        try:
            if not isinstance(error, KeyboardInterrupt):
                wait_for(last)
            elif not self._observer and not isinstance(error, StopNow):
                self._executor.cancel(PATIENCE_SECONDS)
        finally:
            # Once is not enough for a search that is only about to begin.
            while wait([last], _CANCEL_AGAIN_SECONDS).not_done:
                self._executor.cancel()
            self._thread.shutdown()


@dataclass(slots=True)
class PendingSearch:
    """Plans that are being carried out: who wrote them, how they were read, what will be found."""

    states: list[RolloutState]
    readings: list[PlanReading]
    found: Future[list[tuple[NodeResult, ...]]]


@dataclass(slots=True)
class MicroBatch:
    """Drafts that are generated at once; all that are active are in the same round.

    Attributes:
        cache: Keys and values of the active drafts, or None where none are kept.
        search: The search that they wait for, if any.
    """

    states: list[RolloutState]
    cache: PrefixCache | None = None
    search: PendingSearch | None = None

    @property
    def active(self) -> list[RolloutState]:
        """The drafts that are not finished."""
        return [state for state in self.states if state.stop is None]


def count_fitting(states: Sequence[RolloutState], rows: int, tokens: int | None) -> int:
    """How many of the first drafts make a micro-batch, at least one.

    Args:
        states: Not empty; the order stays.
        rows: Most drafts.
        tokens: Most tokens, or None: as many rows as there are, each as long as the longest prompt
            with the longest answer.
    """
    most = min(rows, len(states))
    if tokens is None:
        return most
    width = 0
    for count, state in enumerate(islice(states, most)):
        width = max(width, len(state.context) + state.budget)
        if (count + 1) * width > tokens:
            return max(1, count)
    return most
