"""What an evaluation opens before a model is loaded, and the checks that precede a suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rsearch_cli.evaluation.methods import DIRECT
from rsearch_cli.evaluation.spec import (
    EvalSpec,
    PolicyFacts,
    add_stored_facts,
    check_judge,
    describe_settings,
    identify_policy,
)
from rsearch_cli.evaluation.stored import complete_batches, plan_batches, read_results
from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.questions.sets import QuestionSet, open_question_set
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.unread import WITHOUT_CORPUS
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.search.sources import SearchSource, open_sources
from rsearch_cli.services.runtime import Services, open_services
from rsearch_cli.workflows.open_policy import open_endpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Remote:
    """What is asked over the network, apart from searches."""

    judge: AnswerJudge | None
    policy: EndpointPolicy | None

    def facts(self) -> PolicyFacts:
        """How the policy's server is asked; nothing for local weights."""
        return self.policy.mode.as_settings() if self.policy else {}


@contextmanager
def open_remote(recipe: Recipe, services: Services) -> Iterator[Remote]:
    """Open the judge and the policy's server; each answers once before anything is loaded."""
    with ExitStack() as stack:
        if judge := open_judge(recipe, services):
            stack.enter_context(judge)
            judge.check()
        policy = None
        if recipe.policy.endpoint.url is not None:
            policy = stack.enter_context(open_endpoint(recipe, services))
        yield Remote(judge, policy)


def open_searched(spec: EvalSpec, question_set: QuestionSet) -> dict[str, SearchSource]:
    """Open the search sources; a method that does not search needs no key.

    Raises what `open_sources` does.
    """
    return open_sources(spec.recipe.search, question_set.corpus, offline=_is_keyless(spec))


def check_evaluations(specs: Mapping[str, EvalSpec], *, overwrite: bool = False) -> None:
    """Check several evaluations before the first one runs; nothing is paid for.

    Each is opened as when it runs, but for the policy and the judge, of which address and key are
    checked. One that is finished needs no more keys than to be read again.

    Args:
        specs: The evaluations, by a name for messages.
        overwrite: Whether they start over where their folder contains one.

    Raises:
        RsearchError: One of them could not start.
    """
    sources: dict[str, SearchSource] = {}
    former: object = None
    for name, spec in specs.items():
        logger.info(f"checking question set {name}")
        recipe, folder = spec.recipe, EvaluationFolder(spec.output_dir)
        folder.check()
        question_set = open_question_set(recipe.questions, recipe.seed)
        policy = identify_policy(spec)
        # A large corpus takes a minute to open, and most suites search the same one in all sets.
        searched = _describe_searched(spec)
        if searched != former:
            sources, former = open_searched(spec, question_set), searched
        continued = folder.holds_evaluation and not overwrite
        if not continued:
            _check_keys(recipe)
        questions = question_set.load(spec.split, spec.limit)
        if continued:
            facts = add_stored_facts(policy, folder)
            stored = folder.read_settings()
            folder.check_settings(describe_settings(spec, questions, sources, facts, stored))
            batches = plan_batches(spec, questions)
            if complete_batches(read_results(folder), batches)[1] < len(batches):
                check_judge(recipe, folder)
                _check_keys(recipe)


def _check_keys(recipe: Recipe) -> None:
    """Check the addresses and keys of the judge and of the policy's server; nothing is sent."""
    with open_services(recipe, None) as services, ExitStack() as stack:
        if judge := open_judge(recipe, services):
            stack.enter_context(judge)
        if recipe.policy.endpoint.url is not None:
            policy = stack.enter_context(EndpointPolicy(recipe.policy, services))
            if recipe.cache.mode != "offline":
                policy.check_key()


def _is_keyless(spec: EvalSpec) -> bool:
    return spec.recipe.cache.mode == "offline" or spec.methods == (DIRECT,)


def _describe_searched(spec: EvalSpec) -> object:
    """Return what decides how sources are opened, to compare it with that of another evaluation."""
    recipe = spec.recipe
    of_questions = any(
        source.corpus == "questions" and source.type not in WITHOUT_CORPUS
        for source in recipe.search.sources.values()
    )
    corpus = (recipe.questions, recipe.seed) if of_questions else None
    return recipe.search, corpus, _is_keyless(spec)
