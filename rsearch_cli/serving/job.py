"""A request in work: its rollout, and the answer that it becomes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rsearch_cli.errors import ServiceFailure
from rsearch_cli.policy.generation import Sampling
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import Asked, Event, EventWriter
from rsearch_cli.rollout.state import RolloutState
from rsearch_cli.rollout.turns import Turns
from rsearch_cli.services.budget import Bill
from rsearch_cli.serving.discretion import (
    without_details,
    without_reason,
    without_search_errors,
)
from rsearch_cli.serving.requests import Ticket
from rsearch_cli.types import FollowUp, Question
from rsearch_cli.workflows.ask import Agent

JOIN_SECONDS = 5.0
"""How long the end of a server waits for work that was cancelled."""

# Scores divided by less are no longer finite, and one such row would end its whole batch.
_LEAST_TEMPERATURE = 1e-3


@dataclass(eq=False, slots=True)
class Job:
    """A request in work.

    Attributes:
        ticket: The request.
        sampling: How its tokens are chosen.
        bill: What it has cost.
        asked: How its question is asked, once that is known.
        state: Its rollout, once that is known.
        waits_for: Work elsewhere that it needs next, or None if it is its turn to generate.
        then: What to do when that work is done.
        cache: Keys and values of the batch that it was last generated in, or None.
        row: Its row in that batch.
    """

    ticket: Ticket
    sampling: Sampling
    bill: Bill = field(default_factory=Bill)
    asked: FollowUp | None = None
    state: RolloutState | None = None
    waits_for: Future[Any] | None = None
    then: Callable[[], None] | None = None
    cache: PrefixCache | None = None
    row: int = 0

    @property
    def writer(self) -> EventWriter | None:
        """Reports what its rollout does, or None if nobody wants to know."""
        observer = self.state.observer if self.state else None
        return observer if isinstance(observer, EventWriter) else None


class JobSteps:
    """What happens to a request before and after its turns.

    Args:
        agent: Answers.
        explain_all: See `ServingEngine`.
    """

    def __init__(self, agent: Agent, explain_all: bool) -> None:
        self.agent = agent
        self._explains_all = explain_all
        self.turns = Turns(agent.policy, agent.executor, agent.recipe)

    def open(self, ticket: Ticket) -> Job:
        """Make the job of a request."""
        temperature = ticket.request.temperature
        if temperature < _LEAST_TEMPERATURE:
            temperature = 0.0
        top_p = self.agent.recipe.rollout.top_p if temperature else 1.0
        return Job(ticket, Sampling(temperature, top_p))

    def needs_condensing(self, job: Job) -> bool:
        """Whether the question may refer to earlier ones."""
        return bool(job.ticket.request.history) and self.agent.recipe.dialogue.follow_up

    def condense(self, job: Job) -> FollowUp:
        """Rewrite the question so that it stands alone; may take as long as a generation."""
        asked = self.agent.condense(job.ticket.request.history, job.ticket.request.question)
        return asked if self._explains_all else without_reason(asked)

    def start(self, job: Job, asked: FollowUp) -> RolloutState:
        """Start the rollout of a question.

        Raises:
            PolicyError: Its prompt leaves no room for an answer.
        """
        ticket = job.ticket
        job.asked = asked
        ticket.tell(Asked(asked.question, asked.asked_as, asked.note))
        observer = EventWriter(partial(self._tell, ticket)) if ticket.is_followed else None
        question = Question("asked", asked.asked, ())
        job.state = self.turns.start(question, observer, ticket.request.max_tokens)
        return job.state

    def _tell(self, ticket: Ticket, event: Event) -> None:
        ticket.tell(event if self._explains_all else without_details(event))

    def answer(self, job: Job) -> AgentAnswer:
        """Return the answer of a finished rollout.

        Raises:
            ServiceFailure: The policy's server did not reply.
        """
        assert job.state is not None
        if job.writer:
            job.writer.end_turn()
        trajectory = job.state.finish(self.agent.policy.eos_id)
        if trajectory.error is not None:
            raise ServiceFailure(trajectory.error)
        answer = AgentAnswer(trajectory, self.agent.recipe, 0.0, 0.0, follow_up=job.asked)
        return answer if self._explains_all else without_search_errors(answer)

    def needs_paragraph(self, job: Job) -> bool:
        """Whether a long answer is wanted."""
        return (job.ticket.request.style or self.agent.recipe.dialogue.style) == "paragraph"

    def write_paragraph(self, answer: AgentAnswer) -> AgentAnswer:
        """Add the long answer; may take as long as a generation."""
        paragraph = self.agent.write_paragraph(answer)
        return replace(
            answer, paragraph=paragraph if self._explains_all else without_reason(paragraph)
        )

    def close(self, job: Job, answer: AgentAnswer) -> AgentAnswer:
        """Return the answer with its cost."""
        seconds = time.perf_counter() - job.ticket.submitted
        return replace(answer, seconds=seconds, usd=job.bill.usd)
