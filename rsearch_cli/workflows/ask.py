"""The search agent: opened from a run, a model or a server, and asked questions."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Self

from rsearch_cli.errors import ServiceFailure
from rsearch_cli.policy.generation import Policy, PromptRenderer, Sampling
from rsearch_cli.policy.prompts import refuse_long_prompts, render_question
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.unread import log_notes
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.rollout.state import Executor, Observer
from rsearch_cli.search.executor import open_executor
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import Passage, Question
from rsearch_cli.workflows.open_policy import choose_policy, open_policy

logger = logging.getLogger(__name__)

NANO = "builtin:nano"
"""The model that was trained on the search protocol and needs no instructions."""

# For someone who waits; any other setting takes precedence.
_INTERACTIVE = ("policy.endpoint.service.retries=1",)
_EXAMPLES = 3


class Agent:
    """A policy and a search layer, ready to answer questions; each question stands alone.

    Open one with `from_pretrained`. It is a context manager; otherwise call `close`, or leave that
    to the garbage collector.

    Attributes:
        recipe: All settings.
        name: Name of the model, for display.
        examples: Questions that its sources can answer, if known.
        policy: Generates.
        executor: Searches.
        budget: What was paid.
    """

    recipe: Recipe
    name: str
    examples: tuple[str, ...]
    policy: Policy
    executor: Executor
    budget: Budget
    _sampling: Sampling
    _finalizer: weakref.finalize[[], Agent]

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        recipe: Recipe | str | Path | None = None,
        endpoint: str | None = None,
        endpoint_model: str | None = None,
        overrides: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
        questions: Sequence[str] = (),
        trust_settings: bool = False,
        trust_remote_code: bool = False,
    ) -> Agent:
        """Open an agent.

        Args:
            model: Run folder, adapter, model folder, Hub id or `builtin:nano`; None leaves it to
                the recipe.
            recipe: A recipe, or the name or path of one; None takes the recipe of the run that
                `model` names, else `quickstart`.
            endpoint: URL of an OpenAI-compatible server to use instead of local weights.
            endpoint_model: The model's name on that server.
            overrides: Settings as `key=value`, as for `--set`.
            settings: Further settings, by dotted key; they take precedence over `overrides`.
            temperature: Sampling temperature; 0 is greedy decoding.
            questions: Questions whose length is checked before the model is loaded.
            trust_settings: Accept all settings of a recipe that somebody else wrote.
            trust_remote_code: Run Python code that comes with the model.

        Raises:
            RecipeError: The recipe or a setting cannot be used.
            DataError: The corpus cannot be used.
            SourceError: A search source cannot be set up.
            PolicyError: The model cannot be found or loaded, or a question is too long for it.
            AccessDenied: A key is missing or refused.
            UsageError: Arguments contradict each other.
        """
        loaded, adapter = choose_policy(
            str(recipe) if isinstance(recipe, Path) else recipe,
            [*_INTERACTIVE, *overrides],
            None if model is None else str(model),
            endpoint,
            endpoint_model,
            {**(settings or {}), "policy.trust_remote_code": trust_remote_code or None},
            trust_settings=trust_settings,
        )
        log_notes(loaded, "infer", implied=len(_INTERACTIVE))
        _check_instructions(loaded.recipe, loaded.name, adapter)
        with ExitStack() as stack:
            agent = cls._open(stack, loaded.recipe, adapter, questions)
            agent._finalizer = weakref.finalize(agent, stack.pop_all().close)
        top_p = agent.recipe.rollout.top_p if temperature else 1.0
        agent._sampling = Sampling(temperature, top_p)
        agent.name = _name_model(agent.recipe, model)
        return agent

    @classmethod
    def _open(
        cls, stack: ExitStack, recipe: Recipe, adapter: Path | None, questions: Sequence[str]
    ) -> Agent:
        """Open search sources and policy, in the order in which they can fail."""

        def check(policy: PromptRenderer, fitted: Recipe) -> None:
            render = partial(render_question, policy=policy, recipe=fitted)
            refuse_long_prompts(_as_questions(questions or ["?"]), render, fitted.policy)

        agent = cls()
        logger.info("opening the search sources")
        services = stack.enter_context(open_services(recipe, None))
        executor = open_executor(recipe, partial(_read_corpus, recipe), services)
        agent.executor = stack.enter_context(executor)
        agent.policy, agent.recipe = stack.enter_context(
            open_policy(recipe, adapter, services, check, today=date.today())
        )
        agent.budget = services.budget
        agent.examples = _find_examples(recipe)
        return agent

    def ask(self, question: str, observer: Observer | None = None) -> AgentAnswer:
        """Answer one question.

        Args:
            question: The question.
            observer: Follows the rollout.

        Raises:
            PolicyError: The question leaves no room for an answer.
            ServiceFailure: The policy's server did not reply.
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A call could exceed the budget.
            OfflineMiss: Offline, and something is not in the cache.
        """
        (answer,) = self._roll_out([question], observer)
        if answer.trajectory.error is not None:
            raise ServiceFailure(answer.trajectory.error)
        return answer

    def ask_many(self, questions: Sequence[str]) -> list[AgentAnswer]:
        """Answer several questions in one batch, in order.

        A question that the policy's server did not reply to has no answer, and the reason in
        `trajectory.error`. Seconds and dollars of the batch are divided equally.

        Raises:
            PolicyError: A question leaves no room for an answer.
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A call could exceed the budget.
            OfflineMiss: Offline, and something is not in the cache.
        """
        return self._roll_out(questions, None) if questions else []

    def close(self) -> None:
        """Close the search sources, the policy and the connections to services."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the agent."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the agent."""
        self.close()

    def _roll_out(self, questions: Sequence[str], observer: Observer | None) -> list[AgentAnswer]:
        started, paid = time.perf_counter(), self.budget.snapshot().total.usd
        rollout = Rollout(self.policy, self.executor, self.recipe, observer)
        trajectories = rollout.run(_as_questions(questions), self._sampling)
        seconds = (time.perf_counter() - started) / len(questions)
        usd = (self.budget.snapshot().total.usd - paid) / len(questions)
        return [AgentAnswer(trajectory, self.recipe, seconds, usd) for trajectory in trajectories]


def _as_questions(texts: Sequence[str]) -> list[Question]:
    return [Question(f"asked-{number}", text, ()) for number, text in enumerate(texts, 1)]


def _check_instructions(recipe: Recipe, name: str, adapter: Path | None) -> None:
    """Check that the model exists, and warn if nothing tells it how to search."""
    on_server = recipe.policy.endpoint.url is not None
    if not on_server:
        locate_model(recipe.policy.model)
    untrained = adapter is None and (on_server or recipe.policy.model != NANO)
    if untrained and recipe.protocol.system_prompt == "":
        logger.warning(
            f"recipe {name} does not tell the model how to search; a model that was not trained "
            "with it needs another one, such as --recipe hotpot-offline"
        )


def _read_corpus(recipe: Recipe) -> Iterator[Passage]:
    """The passages of the question set, which is opened only if a source reads them."""
    return open_question_set(recipe.questions, recipe.seed).corpus()


def _name_model(recipe: Recipe, given: str | Path | None) -> str:
    endpoint = recipe.policy.endpoint
    if endpoint.url is not None:
        return f"{endpoint.model or recipe.policy.model} at {hide_login(endpoint.url)}"
    return str(given or recipe.policy.model)


def _find_examples(recipe: Recipe) -> tuple[str, ...]:
    """Questions about the fictional world, which nobody could come up with."""
    if recipe.questions.source != "world":
        return ()
    world = open_question_set(recipe.questions, recipe.seed)
    return tuple(question.text for question in world.load("test", _EXAMPLES))
