"""The data path: question → plan → results → answer, for train, evaluation and inference alike.

Place in the path: the middle of everything; it asks the policy for text, reads plans, has them
carried out and inserts the results, until every question has an answer or no tokens are left.

    context = prompt + what the model wrote + what the system inserted      (token ids throughout)

Nothing that was generated is ever encoded again: a completion is the concatenation of the ids that
were sampled and the ids that were inserted, and its mask tells them apart. On failure: a plan that
cannot be read and a search that failed are told to the model in the result block and recorded in
the trajectory; nothing is raised for them. A prompt that leaves no room to answer raises
`PolicyError`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.generation import GREEDY, Generation, Sampling
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.protocol.prompt import build_messages
from rsearch_cli.protocol.results import render_invalid_plan, render_results
from rsearch_cli.protocol.transcript import ANSWER_CLOSE, SEARCH_CLOSE, answer_text, last_plan_text
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import (
    NodeResult,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)


class TextPolicy(Protocol):
    """What a rollout needs of a policy (see `policy.local.LocalPolicy`)."""

    forbidden: tuple[str, ...]

    @property
    def eos_id(self) -> int:
        """The id that closes a finished row."""
        ...

    def encode_prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], str]:
        """Ids of a rendered chat, and what its template has opened for the model."""
        ...

    def encode_inserted(self, text: str) -> list[int]:
        """Ids of text that the system writes."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, exactly."""
        ...

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        stops: Sequence[str],
        max_new_tokens: Sequence[int],
        sampling: Sampling = GREEDY,
    ) -> list[Generation]:
        """Continue each of `[B]` contexts up to a stop, its end or its own limit."""
        ...


class Executor(Protocol):
    """What a rollout needs of the search layer (see `search.executor.PlanExecutor`)."""

    def execute(self, plans: Sequence[SearchPlan]) -> list[tuple[NodeResult, ...]]:
        """Carry plans out; one tuple a plan, one result a node."""
        ...


@dataclass(slots=True)
class RolloutTimes:
    """Seconds of wall-clock time that rollouts took, by part; added up over calls."""

    generate: float = 0.0
    search: float = 0.0

    def copy(self) -> RolloutTimes:
        """The state now, for a difference later."""
        return RolloutTimes(self.generate, self.search)


@dataclass(slots=True)
class Draft:
    """A trajectory in the making."""

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


class Rollout:
    """Rolls questions out to trajectories with one policy and one search layer.

    Args:
        policy: Writes.
        executor: Searches.
        recipe: Its protocol, search, rollout and policy sections are read.

    Attributes:
        times: Seconds by part since the rollout was made.
    """

    def __init__(self, policy: TextPolicy, executor: Executor, recipe: Recipe) -> None:
        self.policy = policy
        self.executor = executor
        self.recipe = recipe
        self.times = RolloutTimes()

    def run(
        self,
        questions: Sequence[Question],
        sampling: Sampling,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Roll out one completion a question; repeat a question to sample it several times.

        Args:
            questions: `[B]` questions.
            sampling: Greedy or sampled.
            on_done: Told how many are finished after each micro-batch.

        Returns:
            `[B]` trajectories, in order.
        """
        trajectories: list[Trajectory] = []
        for batch in self._micro_batches(questions):
            drafts = [self._draft(question) for question in batch]
            while active := [draft for draft in drafts if draft.stop is None]:
                self._write(active, sampling)
                self._search([draft for draft in active if draft.stop is None])
            trajectories += [draft.finish(self.policy.eos_id) for draft in drafts]
            if on_done:
                on_done(len(trajectories))
        return trajectories

    def _micro_batches(self, questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
        size = self.recipe.rollout.micro_batch
        for start in range(0, len(questions), size):
            yield questions[start : start + size]

    def _draft(self, question: Question) -> Draft:
        recipe = self.recipe
        messages = build_messages(
            question, recipe.protocol, recipe.rollout.max_turns, self.policy.forbidden
        )
        prompt_ids, opening = self.policy.encode_prompt(messages)
        if recipe.rollout.open_thought and not opening:
            opening = "<think>"
            prompt_ids = prompt_ids + self.policy.encode_inserted(opening)
        room = recipe.policy.max_seq_length - len(prompt_ids) - 1  # one for eos
        if room < 1:
            raise PolicyError(
                f"question {question.id}: its prompt has {len(prompt_ids)} tokens, and "
                f"policy.max_seq_length is {recipe.policy.max_seq_length}; raise that or drop the "
                "question"
            )
        return Draft(question, prompt_ids, opening, min(recipe.rollout.max_new_tokens, room))

    def _write(self, drafts: Sequence[Draft], sampling: Sampling) -> None:
        """Let the model continue every draft up to its next tag; decide which ones are done.

        All drafts of a batch are in the same round: each round ends a draft or searches for it.
        """
        searches_left = self.recipe.rollout.max_turns - len(drafts[0].rounds)
        stops = [SEARCH_CLOSE, ANSWER_CLOSE] if searches_left else [ANSWER_CLOSE]
        started = time.perf_counter()
        generations = self.policy.generate(
            [d.context for d in drafts], stops, [d.budget for d in drafts], sampling
        )
        self.times.generate += time.perf_counter() - started
        for draft, written in zip(drafts, generations, strict=True):
            draft.segments.append(Segment(written.text, written.token_ids, "model"))
            draft.budget -= len(written.token_ids)
            if written.stop == "eos":
                draft.stop = "eos"
            elif written.stop == "length":
                draft.stop = "length"
            elif ANSWER_CLOSE in written.text:
                draft.stop = "answer"
            draft.answer = answer_text(written.text) or draft.answer

    def _search(self, drafts: Sequence[Draft]) -> None:
        """Carry out the plans that drafts have just closed, and insert the results."""
        readings = [
            read_plan(last_plan_text(d.segments[-1].text) or "", self.recipe.protocol)
            for d in drafts
        ]
        started = time.perf_counter()
        found = iter(self.executor.execute([r.plan for r in readings if r.plan is not None]))
        self.times.search += time.perf_counter() - started
        protocol, forbidden = self.recipe.protocol, self.policy.forbidden
        for draft, reading in zip(drafts, readings, strict=True):
            if reading.plan is None:
                results: tuple[NodeResult, ...] = ()
                block = render_invalid_plan(reading.problems, protocol)
            else:
                results = next(found)
                chars = self.recipe.search.passage_chars
                block = render_results(results, protocol, chars, forbidden)
            draft.rounds.append(SearchRound(reading.plan, reading.problems, results))
            self._insert(draft, block)

    def _insert(self, draft: Draft, block: str) -> None:
        """Append a result block; a draft without room or budget to go on ends here."""
        ids = self.policy.encode_inserted(block)
        draft.segments.append(Segment(self.policy.decode(ids), tuple(ids), "system"))
        room = self.recipe.policy.max_seq_length - len(draft.context) - 1  # one for eos
        draft.budget = min(draft.budget, room)
        if draft.budget < 1:
            draft.stop = "length"
