"""The agent that answers single questions, each in a rollout of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rsearch_cli.errors import ServiceFailure
from rsearch_cli.policy.generation import GREEDY, Policy, Sampling
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.rollout.state import Executor, Observer
from rsearch_cli.services.budget import Budget
from rsearch_cli.session.answer import AgentAnswer
from rsearch_cli.types import Question

ASKED = "asked"
"""Id of every question asked."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A policy and a search layer, ready to answer questions; each question stands alone.

    Attributes:
        policy: Generates.
        executor: Searches.
        recipe: All settings.
        budget: Records what is spent.
        sampling: Greedy by default.
        name: Name of the model, for display.
        examples: Questions that its sources can answer, if known.
    """

    policy: Policy
    executor: Executor
    recipe: Recipe
    budget: Budget
    sampling: Sampling = GREEDY
    name: str = ""
    examples: tuple[str, ...] = ()

    def ask(self, text: str, observer: Observer | None = None) -> AgentAnswer:
        """Answer one question.

        Args:
            text: The question.
            observer: Follows the rollout.

        Raises:
            PolicyError: The question leaves no room for an answer.
            ServiceFailure: The policy's server did not reply.
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A call could exceed the budget.
            OfflineMiss: Offline, and something is not in the cache.
        """
        started, paid = time.perf_counter(), self.budget.snapshot().total.usd
        rollout = Rollout(self.policy, self.executor, self.recipe, observer)
        question = Question(ASKED, text, answers=())
        trajectory = rollout.run([question], self.sampling)[0]
        if trajectory.error is not None:
            raise ServiceFailure(trajectory.error)
        return AgentAnswer(
            trajectory=trajectory,
            recipe=self.recipe,
            seconds=time.perf_counter() - started,
            usd=self.budget.snapshot().total.usd - paid,
        )
