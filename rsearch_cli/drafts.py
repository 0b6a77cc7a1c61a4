"""Trajectories in the making, their micro-batches, who searches for them and who looks on.

Place in the path: `rollout` moves drafts from question to answer; here is what it moves. On
failure: nothing here fails; a draft that fits no bound makes a micro-batch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

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


class Executor(Protocol):
    """What a rollout needs of the search layer (see `search.executor.PlanExecutor`)."""

    def execute(
        self,
        plans: Sequence[SearchPlan],
        on_result: Callable[[NodeResult], None] | None = None,
    ) -> list[tuple[NodeResult, ...]]:
        """Carry plans out; one tuple a plan, one result a node, which `on_result` is told first."""
        ...

    def cancel(self) -> None:
        """Give up what is being carried out in another thread."""
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
class Draft:
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


@dataclass(slots=True)
class PendingSearch:
    """Plans that are being carried out: who wrote them, how they were read, what will be found."""

    drafts: list[Draft]
    readings: list[PlanReading]
    found: Future[list[tuple[NodeResult, ...]]]


@dataclass(slots=True)
class MicroBatch:
    """Drafts that are generated at once; all that are active are in the same round.

    Attributes:
        cache: Keys and values of the active drafts, or None where none are kept.
        search: The search that they wait for, if any.
    """

    drafts: list[Draft]
    cache: PrefixCache | None = None
    search: PendingSearch | None = None

    @property
    def active(self) -> list[Draft]:
        """The drafts that are not finished."""
        return [draft for draft in self.drafts if draft.stop is None]


def count_fitting(drafts: Sequence[Draft], rows: int, tokens: int | None) -> int:
    """How many of the first drafts make a micro-batch, at least one.

    Args:
        drafts: Not empty; the order stays.
        rows: Most drafts.
        tokens: Most tokens, or None: as many rows as there are, each as long as the longest prompt
            with the longest answer.
    """
    most = min(rows, len(drafts))
    if tokens is None:
        return most
    width = 0
    for count, draft in enumerate(islice(drafts, most)):
        width = max(width, len(draft.context) + draft.budget)
        if (count + 1) * width > tokens:
            return max(1, count)
    return most
