"""The agent that a person asks: one question at a time, through the one rollout.

Place in the path: policy and search layer come in open, exchanges go out. On failure: what the
rollout raises; a server that gave no reply, which evaluation would count, is a `ServiceFailure`
here, because nobody is helped by an empty answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rsearch_cli.errors import ServiceFailure
from rsearch_cli.policy.generation import GREEDY, Policy, Sampling
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.rollout.state import Executor, Observer
from rsearch_cli.services.budget import Budget
from rsearch_cli.session.exchange import Exchange
from rsearch_cli.types import Question

ASKED = "asked"
"""Id of a person's question."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything that answers need; each question stands alone.

    Attributes:
        policy: Writes.
        executor: Searches.
        recipe: All settings.
        budget: Pays.
        sampling: Greedy unless the person wants otherwise.
        name: The model, for the person.
        examples: Questions that its sources can answer, where they are known.
    """

    policy: Policy
    executor: Executor
    recipe: Recipe
    budget: Budget
    sampling: Sampling = GREEDY
    name: str = ""
    examples: tuple[str, ...] = ()

    def ask(self, text: str, observer: Observer | None = None) -> Exchange:
        """Answer one question.

        Args:
            text: The question.
            observer: Told what happens while it does.

        Raises:
            PolicyError: The question leaves no room to answer.
            ServiceFailure: The policy's server gave no reply.
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A call could pass the budget.
            OfflineMiss: An answer is not in the cache, and nothing may be sent.
        """
        started, paid = time.perf_counter(), self.budget.snapshot().total.usd
        rollout = Rollout(self.policy, self.executor, self.recipe, observer)
        question = Question(ASKED, text, answers=())
        trajectory = rollout.run([question], self.sampling)[0]
        if trajectory.error is not None:
            raise ServiceFailure(trajectory.error)
        return Exchange(
            trajectory=trajectory,
            recipe=self.recipe,
            seconds=time.perf_counter() - started,
            usd=self.budget.snapshot().total.usd - paid,
        )
