"""The search agent: opened from a run, a model or a server, and asked questions."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

from rsearch_cli.dialogue.condense import condense
from rsearch_cli.dialogue.paragraph import write_paragraph
from rsearch_cli.dialogue.writers import Writer, explain_missing, open_writer
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
from rsearch_cli.types import FollowUp, Paragraph, Passage, Question, Turn
from rsearch_cli.workflows.open_policy import NANO, choose_policy, open_policy

logger = logging.getLogger(__name__)

Style = Literal["short", "paragraph"]
"""Length of an answer."""

# For someone who waits; any other setting takes precedence.
_INTERACTIVE = ("policy.endpoint.service.retries=1",)
_EXAMPLES = 3


class Agent:
    """A policy and a search layer, ready to answer questions.

    Each question stands alone, unless it is asked in a conversation. Open an agent with
    `from_pretrained`. It is a context manager; otherwise call `close`, or leave that to the garbage
    collector.

    Attributes:
        recipe: All settings.
        name: Name of the model, for display.
        policy: Generates.
        executor: Searches.
        budget: What was paid.
    """

    recipe: Recipe
    name: str
    policy: Policy
    executor: Executor
    budget: Budget
    _writer: Writer | None
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
        source: str | None = None,
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
            source: Kind of all search sources, such as `wikipedia`, or their settings as YAML; None
                leaves them to the recipe.
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
            source=source,
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
        agent._writer = open_writer(agent.recipe, agent.policy, services)
        if agent._writer is not None:
            stack.callback(agent._writer.close)
        return agent

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """Questions that its sources can answer, if known."""
        return _find_examples(self.recipe)

    def ask(
        self,
        question: str,
        observer: Observer | None = None,
        *,
        style: Style | None = None,
    ) -> AgentAnswer:
        """Answer one question.

        Args:
            question: The question.
            observer: Follows the rollout.
            style: `paragraph` adds a long answer to the short one; None takes the recipe's.

        Raises:
            PolicyError: The question leaves no room for an answer.
            ServiceFailure: The policy's server did not reply.
            AccessDenied: A service refuses the key or the account.
            BudgetExceeded: A call could exceed the budget.
            OfflineMiss: Offline, and something is not in the cache.
        """
        return self._answer((), question, observer, style)

    def start_conversation(self) -> Conversation:
        """Start a conversation, in which follow-up questions are understood."""
        return Conversation(self)

    @property
    def writer_is_local(self) -> bool:
        """Whether `condense` and `write_paragraph` use the policy's local weights.

        Only one thread may generate with these at a time.
        """
        return self._writer is not None and self._writer.is_local

    @property
    def can_write(self) -> bool:
        """Whether there is a model for `condense` and `write_paragraph`."""
        return self._writer is not None

    def describe_follow_ups(self) -> str:
        """Return in a sentence whether follow-up questions are understood, and how."""
        if not self.recipe.dialogue.follow_up:
            return "Each question stands alone: dialogue.follow_up is false."
        if self._writer is None:
            return f"Each question stands alone: {explain_missing(self.recipe)}."
        return f"A follow-up question is rewritten by {self._writer.name} before it is asked."

    def condense(self, history: Sequence[Turn], question: str) -> FollowUp:
        """Rewrite a question into one that can be understood without the conversation.

        It is not changed if there is no history, if it stands alone, or if it cannot be rewritten;
        a note then says why. Failures raise nothing.

        Args:
            history: Earlier turns, oldest first.
            question: As typed.
        """
        tokens = self.recipe.dialogue.history_tokens
        return condense(self._writer, history, question, tokens, explain_missing(self.recipe))

    def write_paragraph(self, answer: AgentAnswer) -> Paragraph:
        """Write a long answer, each sentence of which is checked against the passages it cites.

        Without a writer, and after a failure, it has no sentences and a note says why. Failures
        raise nothing.
        """
        return write_paragraph(self._writer, answer, explain_missing(self.recipe))

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

    def _answer(
        self,
        history: Sequence[Turn],
        question: str,
        observer: Observer | None,
        style: Style | None,
        on_asked: Callable[[FollowUp], None] | None = None,
    ) -> AgentAnswer:
        started, paid = time.perf_counter(), self.budget.snapshot().total.usd
        asked = self.condense(history, question)
        if on_asked:
            on_asked(asked)
        (answer,) = self._roll_out([asked.asked], observer)
        if answer.trajectory.error is not None:
            raise ServiceFailure(answer.trajectory.error)
        answer = replace(answer, follow_up=asked)
        if (style or self.recipe.dialogue.style) == "paragraph":
            answer = replace(answer, paragraph=self.write_paragraph(answer))
        usd = self.budget.snapshot().total.usd - paid
        return replace(answer, seconds=time.perf_counter() - started, usd=usd)

    def _roll_out(self, questions: Sequence[str], observer: Observer | None) -> list[AgentAnswer]:
        started, paid = time.perf_counter(), self.budget.snapshot().total.usd
        rollout = Rollout(self.policy, self.executor, self.recipe, observer)
        trajectories = rollout.run(_as_questions(questions), self._sampling)
        seconds = (time.perf_counter() - started) / len(questions)
        usd = (self.budget.snapshot().total.usd - paid) / len(questions)
        return [AgentAnswer(trajectory, self.recipe, seconds, usd) for trajectory in trajectories]


class Conversation:
    """Questions to one agent, each understood by those before it.

    Attributes:
        agent: The agent.
        turns: What was asked and answered, oldest first.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.turns: list[Turn] = []

    def ask(
        self,
        question: str,
        observer: Observer | None = None,
        *,
        style: Style | None = None,
        on_asked: Callable[[FollowUp], None] | None = None,
    ) -> AgentAnswer:
        """Answer the next question; `follow_up` of the answer says how it was understood.

        Args:
            question: As typed.
            observer: Follows the rollout.
            style: See `Agent.ask`.
            on_asked: Called before the rollout with how the question is asked.

        Raises:
            RsearchError: As for `Agent.ask`; the question is not part of the conversation then.
        """
        history = self.turns if self.agent.recipe.dialogue.follow_up else ()
        answer = self.agent._answer(history, question, observer, style, on_asked)
        self.turns.append(Turn(question, answer.answer, answer.asked_as))
        return answer


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
