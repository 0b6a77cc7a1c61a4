"""Unfinished rollouts and their micro-batches, and what a rollout needs of search and screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

from rsearch_cli.policy.generation import Context, Prompt
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.types import (
    NodeResult,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

PlanResults = list[tuple[NodeResult, ...]]
"""One tuple per plan, one result per node."""


class Executor(Protocol):
    """The search layer of a rollout (see `search.executor.PlanExecutor`)."""

    def submit(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> Future[PlanResults]:
        """Start to execute plans; `on_result` is called with each result as it arrives."""
        ...

    def execute(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> PlanResults:
        """Execute plans and wait for their results."""
        ...

    def cancel(self, grace: float = 0.0) -> None:
        """Cancel everything in flight after `grace` seconds."""
        ...


class Observer(Protocol):
    """Follows the rollout of one question, such as the screen of a session."""

    def on_text(self, text: str) -> None:
        """Show all that the model has written since the last results; called as it grows.

        The text may start over if a server has to be asked again. The last text of a turn is what
        the trajectory keeps.
        """
        ...

    def on_plan(self, reading: PlanReading) -> None:
        """Show the plan of a closed `<search>` block, before it is executed."""
        ...

    def on_result(self, result: NodeResult) -> None:
        """Show the result of a plan node; called from another thread."""
        ...


@dataclass(slots=True)
class RolloutState:
    """An unfinished rollout.

    Attributes:
        budget: Tokens that the policy may still write.
        observer: Follows this rollout.
    """

    question: Question
    prompt: Prompt
    budget: int
    observer: Observer | None = None
    segments: list[Segment] = field(default_factory=list)
    rounds: list[SearchRound] = field(default_factory=list)
    answer: str | None = None
    stop: Literal["answer", "eos", "length"] | None = None

    @property
    def context(self) -> Context:
        """What the policy sees next."""
        return Context(self.prompt, tuple(self.segments))

    def finish(self, eos_id: int | None) -> Trajectory:
        """Return the trajectory; it ends in eos, masked unless the model sampled it.

        TRL counts a completion that does not end in eos as truncated; `Trajectory.stop` records
        whether it was.
        """
        assert self.stop is not None
        ends = self.segments[-1].token_ids[-1:] if self.segments else ()
        if eos_id is not None and ends != (eos_id,):
            self.segments.append(Segment("", (eos_id,), "system"))
        return Trajectory(
            question=self.question,
            prompt_ids=self.prompt.token_ids,
            opening=self.prompt.opening,
            segments=tuple(self.segments),
            rounds=tuple(self.rounds),
            answer=self.answer,
            stop=self.stop,
        )


@dataclass(frozen=True, slots=True)
class PendingSearch:
    """A search in flight: the rollouts that wait for it, their plans, and the results to come."""

    states: list[RolloutState]
    readings: list[PlanReading]
    results: Future[PlanResults]


@dataclass(slots=True)
class MicroBatch:
    """Rollouts that are generated together; all active ones are in the same round.

    Attributes:
        cache: Keys and values of the active rollouts, or None.
        search: The search that they wait for, if any.
    """

    states: list[RolloutState]
    cache: PrefixCache | None = None
    search: PendingSearch | None = None

    @property
    def active(self) -> list[RolloutState]:
        """The rollouts that are not finished."""
        return [state for state in self.states if state.stop is None]


def count_fitting(states: Sequence[RolloutState], rows: int, tokens: int | None) -> int:
    """Return how many of the first rollouts form a micro-batch; at least one.

    Args:
        states: Not empty.
        rows: Maximum number of rollouts.
        tokens: Maximum number of tokens, each row padded to the longest prompt with the longest
            completion; None for no limit.
    """
    most = min(rows, len(states))
    if tokens is None:
        return most
    width = 0
    for count, state in enumerate(islice(states, most)):
        width = max(width, state.context.tokens + state.budget)
        if (count + 1) * width > tokens:
            return max(1, count)
    return most
