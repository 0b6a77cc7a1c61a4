"""The course of `rsearch infer`: from its options to an agent that can be asked.

Place in the path: the command's body; it opens sources and policy in the order in which they can
fail. On failure: what cannot be used is raised before the model is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any

from rsearch_cli.policy.generation import PromptRenderer, Sampling
from rsearch_cli.policy.prompts import refuse_long_prompts, render_question
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.unread import log_notes
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.session.agent import ASKED, Agent
from rsearch_cli.types import Passage, Question
from rsearch_cli.workflows.open_policy import choose_policy, open_policy

logger = logging.getLogger(__name__)

NANO = "builtin:nano"
"""The model that knows the protocol without being told."""

PERSON = ("policy.endpoint.service.retries=1",)
"""Settings for someone who waits, below any `--set`: they would rather ask again than sit still."""

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class InferOptions:
    """The options as they were given; None is «not given». See `rsearch infer --help`.

    Without a `question` a session begins.
    """

    recipe: str | None = None
    overrides: Sequence[str] = field(default_factory=list)
    model: str | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 0.0
    question: str | None = None
    trust_settings: bool = False
    trust_remote_code: bool = False


@contextmanager
def open_agent(options: InferOptions) -> Iterator[Agent]:
    """Open everything that answers need.

    Raises:
        RecipeError: The recipe or a setting cannot be used.
        DataError: The corpus cannot be used.
        SourceError: A source cannot be set up.
        PolicyError: The model cannot be found or loaded.
        AccessDenied: There is no key where one is needed.
        UsageError: Options contradict each other.
    """
    flags = {
        **options.settings,
        "policy.trust_remote_code": options.trust_remote_code or None,
    }
    loaded, adapter = choose_policy(
        options.recipe,
        [*PERSON, *options.overrides],
        options.model,
        options.endpoint,
        options.endpoint_model,
        flags,
        trust_settings=options.trust_settings,
    )
    log_notes(loaded, "infer", implied=len(PERSON))
    recipe = loaded.recipe
    on_server = recipe.policy.endpoint.url is not None
    if not on_server:
        locate_model(recipe.policy.model)
    untrained = adapter is None and (on_server or recipe.policy.model != NANO)
    if untrained and recipe.protocol.system_prompt == "":
        logger.warning(
            f"recipe {loaded.name} tells the model nothing of how to search; for one that was not "
            "trained with it, name another: --recipe hotpot-offline"
        )

    def check(policy: PromptRenderer, fitted: Recipe) -> None:
        question = Question(ASKED, options.question or "?", ())
        render = partial(render_question, policy=policy, recipe=fitted)
        refuse_long_prompts([question], render, fitted.policy)

    with ExitStack() as stack:
        logger.info("opening the search sources")
        services = stack.enter_context(open_services(recipe, None))
        sources = open_sources(
            recipe.search, lambda: _read_corpus(recipe), offline=recipe.cache.mode == "offline"
        )
        executor = stack.enter_context(PlanExecutor(sources, recipe.search, services))
        policy, recipe = stack.enter_context(
            open_policy(recipe, adapter, services, check, today=date.today())
        )
        top_p = recipe.rollout.top_p if options.temperature else 1.0
        yield Agent(
            policy=policy,
            executor=executor,
            recipe=recipe,
            budget=services.budget,
            sampling=Sampling(options.temperature, top_p),
            name=_name_model(recipe, options.model),
            examples=_find_examples(recipe),
        )


def _read_corpus(recipe: Recipe) -> Iterator[Passage]:
    """The passages that come with the question set, which is opened only if a source wants them."""
    return open_question_set(recipe.questions, recipe.seed).corpus()


def _name_model(recipe: Recipe, given: str | None) -> str:
    endpoint = recipe.policy.endpoint
    if endpoint.url is not None:
        return f"{endpoint.model or recipe.policy.model} at {hide_login(endpoint.url)}"
    return given or recipe.policy.model


def _find_examples(recipe: Recipe) -> tuple[str, ...]:
    """Questions about an invented world, which nobody could think of."""
    if recipe.questions.source != "world":
        return ()
    world = open_question_set(recipe.questions, recipe.seed)
    return tuple(question.text for question in world.load("test", _EXAMPLES))
