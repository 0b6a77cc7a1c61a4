"""The course of `rsearch eval`, from checks to report.

Place in the path: the command's body; it opens what can fail first, asks batch by batch, and works
the figures out from what is stored. On failure: whatever is wrong with the input is raised before
the model is loaded; a run that was cut off goes on from its last whole batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rsearch_cli.evaluation.answering import answer_questions, check_failures, judge_answers
from rsearch_cli.evaluation.folder import EvaluationFolder, whole_batches
from rsearch_cli.evaluation.methods import DIRECT, render_prompt_for
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.spec import (
    EvalSpec,
    describe_policy,
    describe_settings,
    make_results,
    stored_policy,
)
from rsearch_cli.interrupts import Interrupts
from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.policy.generation import PromptRenderer
from rsearch_cli.policy.prompts import refuse_long_prompts
from rsearch_cli.questions.sets import QuestionSet, open_question_set
from rsearch_cli.recipe.loading import dump_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.reward.lexical import describe_unspaced
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.files import REPORT, RESULTS
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import SearchSource, open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.runtime import Services, open_services
from rsearch_cli.types import Question
from rsearch_cli.ui.progress import phase
from rsearch_cli.ui.tables import report_markdown
from rsearch_cli.workflows.open_policy import open_endpoint, open_policy

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 32
"""Questions of a batch unless the user says otherwise; a kill costs at most one batch."""

NEXT_STEP = "fix that and run the command again: the answers so far are kept"

Batch = tuple[str, list[Question]]


@dataclass(slots=True)
class _Bench:
    """What one batch needs."""

    rollout: Rollout
    judge: AnswerJudge | None
    budget: Budget


@dataclass(frozen=True, slots=True)
class _Remote:
    """What is asked over the network beside searches."""

    judge: AnswerJudge | None
    policy: EndpointPolicy | None

    def settings(self) -> dict[str, str | None]:
        """How the policy's server is asked; nothing for local weights."""
        return self.policy.mode.as_settings() if self.policy else {}


def run_evaluation(wanted: EvalSpec, *, overwrite: bool = False) -> dict[str, Any]:
    """Check, go on from what is stored, ask the rest, and write the report.

    Returns:
        `results.json`.

    Raises:
        Interrupted: Ctrl-C; calls under way had a few seconds to end.
        Terminated: The same for SIGTERM.
        HungUp: The same for SIGHUP.
        RsearchError: Any of its kinds; see the modules that are called.
    """
    recipe = wanted.recipe
    folder = EvaluationFolder(wanted.output)
    folder.check()
    question_set = open_question_set(recipe.questions, recipe.seed)
    policy = describe_policy(wanted)
    with ExitStack() as stack:
        stack.enter_context(Interrupts(lambda: describe_rest(folder, overwrite=overwrite)))
        stack.enter_context(folder.locked(overwrite=overwrite))
        services = stack.enter_context(open_services(recipe, folder.path))
        logger.info("opening the search sources")
        # Sources ask for their keys; a question set from the Hub takes minutes to come.
        sources = _open_sources(wanted, question_set)
        remote = None
        if folder.holds_evaluation and not overwrite:
            policy = stored_policy(folder, policy)
        else:
            remote = stack.enter_context(_open_remote(recipe, services))
            policy |= remote.settings()
        questions = question_set.load(wanted.split, wanted.limit)
        references = [question.answers for question in questions]
        if warning := describe_unspaced(references, recipe.reward.normalisation):
            logger.warning(warning)
        settings = describe_settings(wanted, questions, sources, policy)
        folder.begin(settings, dump_recipe(recipe), overwrite=overwrite)
        batches = plan_batches(wanted, questions)
        ids = [(method, [q.id for q in asked]) for method, asked in batches]
        records, done = whole_batches(folder.read_records(), ids)
        folder.keep(records)
        if records:
            logger.info(f"going on in {folder.path}: {len(records)} answers are there")
        if done < len(batches):
            missing = batches[done:]
            if remote is None:
                remote = stack.enter_context(_open_remote(recipe, services))
                # A server that would be asked in another way gives other answers.
                folder.require_same({**settings, "policy": policy | remote.settings()})
            bench = stack.enter_context(_open_bench(wanted, missing, sources, services, remote))
            records += _ask(bench, missing, records, folder)
        results = make_results(wanted, records, question_set, sources, services.budget, policy)
        folder.write_json(RESULTS, results)
        folder.write_text(REPORT, report_markdown(results))
    for name, block in results["methods"].items():
        if block["format_problem"]:
            logger.warning(f"{name}: {block['format_problem']}")
    return results


def describe_rest(folder: EvaluationFolder, *, overwrite: bool) -> str:
    """Say in a few words how an evaluation that stops now goes on."""
    if not folder.holds_evaluation:
        return "nothing was changed"
    but_for = ", but for --overwrite," if overwrite else ""
    return f"the same command{but_for} goes on in {folder.path}"


def plan_batches(wanted: EvalSpec, questions: Sequence[Question]) -> list[Batch]:
    """Every batch in the order of asking: the same for the same settings, whatever is stored."""
    starts = range(0, len(questions), wanted.batch_size)
    return [
        (method, list(questions[start : start + wanted.batch_size]))
        for method in wanted.methods
        for start in starts
    ]


def _open_sources(wanted: EvalSpec, question_set: QuestionSet) -> dict[str, SearchSource]:
    recipe = wanted.recipe
    # Who searches nothing needs no key to do so.
    keyless = recipe.cache.mode == "offline" or wanted.methods == (DIRECT,)
    return open_sources(recipe.search, question_set.corpus, offline=keyless)


@contextmanager
def _open_remote(recipe: Recipe, services: Services) -> Iterator[_Remote]:
    """Judge and policy on a server; each has answered once before anything is loaded."""
    with ExitStack() as stack:
        if judge := open_judge(recipe, services):
            stack.enter_context(judge)
            judge.check()
        policy = None
        if recipe.policy.endpoint.url is not None:
            policy = stack.enter_context(open_endpoint(recipe, services))
        yield _Remote(judge, policy)


@contextmanager
def _open_bench(
    wanted: EvalSpec,
    batches: Sequence[Batch],
    sources: Mapping[str, SearchSource],
    services: Services,
    remote: _Remote,
) -> Iterator[_Bench]:
    """The policy and the search layer for the batches that are to be asked."""

    def check(policy: PromptRenderer, fitted: Recipe) -> None:
        for method, asked in batches:
            refuse_long_prompts(
                asked,
                partial(render_prompt_for, method, policy=policy, recipe=fitted),
                fitted.policy,
            )

    recipe = wanted.recipe
    with ExitStack() as stack:
        executor = stack.enter_context(PlanExecutor(sources, recipe.search, services))
        policy, recipe = stack.enter_context(
            open_policy(recipe, wanted.adapter, services, check, remote.policy)
        )
        rollout = Rollout(policy, executor, recipe)
        yield _Bench(rollout, remote.judge, services.budget)


def _ask(
    bench: _Bench, batches: Sequence[Batch], stored: Sequence[EvalResult], folder: EvaluationFolder
) -> list[EvalResult]:
    """Ask the batches that are missing; each is stored before the next is asked."""
    fresh: list[EvalResult] = []
    most = bench.rollout.recipe.budget.max_failed_share
    for method in dict.fromkeys(method for method, _ in batches):
        mine = [asked for name, asked in batches if name == method]
        with phase(f"evaluating {method}", sum(map(len, mine)), bench.budget.snapshot) as advance:
            for asked in mine:
                rows = _ask_batch(bench, method, asked)
                so_far = [r for r in (*stored, *fresh, *rows) if r.method == method]
                check_failures(
                    so_far, most, bench.judge.last_failure if bench.judge else None, NEXT_STEP
                )
                folder.append(rows)
                fresh += rows
                advance(len(rows))
    return fresh


def _ask_batch(bench: _Bench, method: str, questions: Sequence[Question]) -> list[EvalResult]:
    paid = bench.budget.snapshot().total.usd
    started = time.perf_counter()
    results = answer_questions(bench.rollout, questions, method)
    seconds = round(time.perf_counter() - started, 4)
    if bench.judge:
        results = judge_answers(results, questions, bench.judge)
    usd = (bench.budget.snapshot().total.usd - paid) / len(results)
    return [
        replace(result, usd=usd, seconds=seconds if result.seconds is None else result.seconds)
        for result in results
    ]
