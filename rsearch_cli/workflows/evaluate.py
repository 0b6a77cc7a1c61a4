"""Evaluate a search agent: check, open, continue what is stored, ask the rest, write the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rsearch_cli.evaluation.answering import answer_questions, check_failures, judge_answers
from rsearch_cli.evaluation.methods import AGENT, render_prompt_for
from rsearch_cli.evaluation.report import describe_conditions, summarise_methods
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.samples import start_batch
from rsearch_cli.evaluation.spec import (
    EvalSpec,
    add_stored_facts,
    check_judge,
    describe_settings,
    identify_policy,
)
from rsearch_cli.evaluation.stored import Batch, complete_batches, plan_batches, read_results
from rsearch_cli.interrupts import Interrupts
from rsearch_cli.policy.generation import PromptRenderer
from rsearch_cli.policy.prompts import refuse_long_prompts
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import dump_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.trust import remember_own
from rsearch_cli.reward.judge import AnswerJudge
from rsearch_cli.reward.lexical import describe_unspaced
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.runs.files import ANSWERS, REPORT, RESULTS
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import SearchSource
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.runtime import Services, open_services
from rsearch_cli.services.spend import Spend
from rsearch_cli.types import Question
from rsearch_cli.ui.tables import report_markdown
from rsearch_cli.workflows.open_evaluation import Remote, open_remote, open_searched
from rsearch_cli.workflows.open_policy import open_policy
from rsearch_cli.workflows.specify_evaluation import specify_evaluation

logger = logging.getLogger(__name__)

NEXT_STEP = "fix that and run the same command again: the answers so far are kept"


Progress = Callable[[str, int, Callable[[], Spend]], AbstractContextManager[Callable[[int], None]]]
"""Shows how many answers there are, such as `ui.progress.phase`: called with a name, the total and
what gives the spending, it returns a context manager whose value is called with each number of new
answers."""


def no_progress(
    name: str, total: int, spend: Callable[[], Spend]
) -> AbstractContextManager[Callable[[int], None]]:
    """Show nothing."""
    return nullcontext(lambda count: None)


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """A finished evaluation.

    Attributes:
        folder: The evaluation folder.
        results: The content of `results.json`: `context`, `methods` (a summary each, see
            `evaluation.summary.summarise`), `differences` between methods, and `spend`.
        answers: One result per method and question, or per sample of a question.
    """

    folder: Path
    results: dict[str, Any]
    answers: list[EvalResult]


@dataclass(frozen=True, slots=True)
class _Asker:
    """What answering a batch needs."""

    rollout: Rollout
    judge: AnswerJudge | None
    budget: Budget


def evaluate(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    methods: str | Sequence[str] = AGENT,
    source: str | None = None,
    overrides: Sequence[str] = (),
    data_path: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    samples: int | None = None,
    judge: bool | None = None,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    trust_settings: bool = False,
    trust_remote_code: bool = False,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Evaluate a search agent and the methods it is compared with.

    Answers are stored batch by batch. Called again with the same arguments after a stop, the
    evaluation continues from the stored answers; a finished one is only read.

    Args:
        recipe: A recipe, or the name or path of one; None takes the recipe of the run that `model`
            names, else `quickstart`.
        model: Run folder, adapter, model folder, Hub id or `builtin:nano`.
        endpoint: URL of an OpenAI-compatible server to evaluate instead of local weights.
        endpoint_model: The model's name on that server.
        methods: Of `rsearch`, `rag` (one search) and `direct` (none); several as a list or `a,b`.
        source: Kind of all search sources, such as `wikipedia`, or their settings as YAML; None
            leaves them to the recipe.
        overrides: Settings as `key=value`, as for `--set`.
        data_path: Question file; all of it is evaluated unless `split` is given.
        split: Split of the question set; None takes the recipe's `evaluate.split`.
        limit: Number of questions; None takes the recipe's `evaluate.limit`, or all of a file.
        seed: Seed of the question set: decides which questions are held out.
        batch_size: Questions asked at once; None takes `rollout.micro_batch`, at most 32.
        samples: Answers to sample per question at `rollout.temperature`; None for a greedy one.
        judge: Whether a judge scores the answers; None does if the recipe's reward uses one.
        output_dir: The evaluation folder; None takes `evals/NAME`.
        overwrite: Start over if the folder contains an evaluation.
        trust_settings: Accept all settings of a recipe that somebody else wrote.
        trust_remote_code: Run Python code that comes with the model.
        progress: Shows the number of answers.

    Raises:
        RsearchError: The evaluation cannot start or continue; stored answers are kept.
    """
    spec = specify_evaluation(
        recipe,
        model=model,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        methods=methods,
        source=source,
        overrides=overrides,
        data_path=data_path,
        split=split,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        samples=samples,
        judge=judge,
        output_dir=output_dir,
        trust_settings=trust_settings,
        trust_remote_code=trust_remote_code,
    )
    return run_evaluation(spec, overwrite=overwrite, progress=progress)


def run_evaluation(
    spec: EvalSpec,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
    check: Callable[[Sequence[Question]], None] = lambda questions: None,
) -> EvaluationReport:
    """Run an evaluation that has been specified; see `evaluate`.

    Everything that can fail is opened before the model is loaded.

    Args:
        spec: What to evaluate, and how.
        overwrite: Start over if the folder contains an evaluation.
        progress: Shows the number of answers.
        check: Raises an `RsearchError` for questions that must not be asked.

    Raises:
        Interrupted: Ctrl-C; calls in flight had a few seconds to finish.
        Terminated: The same for SIGTERM.
        HungUp: The same for SIGHUP.
        RsearchError: The evaluation cannot start or continue.
    """
    recipe = spec.recipe
    folder = EvaluationFolder(spec.output_dir)
    folder.check()
    question_set = open_question_set(recipe.questions, recipe.seed)
    policy = identify_policy(spec)
    with ExitStack() as stack:
        stack.enter_context(Interrupts(lambda: describe_resume(folder, overwrite)))
        stack.enter_context(folder.locked(overwrite=overwrite))
        services = stack.enter_context(open_services(recipe, folder.path))
        logger.info("opening the search sources")
        # Before the questions: a source may lack its key, and a set from the Hub takes minutes.
        sources = open_searched(spec, question_set)
        remote, stored = None, None
        if folder.holds_evaluation and not overwrite:
            stored = folder.read_settings()
            policy = add_stored_facts(policy, folder)
        else:
            remote = stack.enter_context(open_remote(recipe, services))
            policy = {**policy, **remote.facts()}
        questions = question_set.load(spec.split, spec.limit)
        check(questions)
        references = [question.answers for question in questions]
        if warning := describe_unspaced(references, recipe.reward.normalisation):
            logger.warning(warning)
        settings = describe_settings(spec, questions, sources, policy, stored)
        folder.begin(settings, dump_recipe(recipe), overwrite=overwrite)
        remember_own(dump_recipe(recipe))
        batches = plan_batches(spec, questions)
        results, done = complete_batches(read_results(folder), batches)
        folder.write_rows(ANSWERS, (result.as_json() for result in results))
        if results:
            logger.info(
                f"{folder.path}: the evaluation continues with the {len(results)} stored answers"
            )
        if missing := batches[done:]:
            if remote is None:
                remote = stack.enter_context(open_remote(recipe, services))
                # A server that is asked in another way gives other answers, another judge verdicts.
                check_judge(recipe, folder)
                folder.check_settings({**settings, "policy": {**policy, **remote.facts()}})
            with _open_asker(spec, missing, sources, services, remote) as asker:
                results += _ask(asker, missing, results, folder, progress)
        report = {
            "context": describe_conditions(spec, len(questions), question_set, sources, policy),
            **summarise_methods(spec, results, policy.get("results")),
            "spend": {name: asdict(s) for name, s in services.budget.snapshot().services.items()},
        }
        folder.write_json(RESULTS, report)
        folder.write_text(REPORT, report_markdown(report))
    for name, block in report["methods"].items():
        if block["format_problem"]:
            logger.warning(f"{name}: {block['format_problem']}")
    return EvaluationReport(folder.path, report, results)


def describe_resume(folder: EvaluationFolder, overwrite: bool) -> str:
    """Return what a stop leaves, and how the command continues."""
    if not folder.holds_evaluation:
        return "nothing was changed"
    without = " without --overwrite" if overwrite else ""
    return f"the same command{without} continues in {folder.path}"


@contextmanager
def _open_asker(
    spec: EvalSpec,
    batches: Sequence[Batch],
    sources: Mapping[str, SearchSource],
    services: Services,
    remote: Remote,
) -> Iterator[_Asker]:
    """Open the search layer and the policy, and check the prompts of the batches before."""

    def check_prompts(policy: PromptRenderer, fitted: Recipe) -> None:
        # All samples of a question have the same prompt.
        for batch in (b for b in batches if b.sample == batches[0].sample):
            encode = partial(render_prompt_for, batch.method, policy=policy, recipe=fitted)
            refuse_long_prompts(batch.questions, encode, fitted.policy)

    with (
        PlanExecutor(sources, spec.recipe.search, services) as executor,
        open_policy(spec.recipe, spec.adapter, services, check_prompts, remote.policy) as opened,
    ):
        policy, recipe = opened
        yield _Asker(Rollout(policy, executor, recipe), remote.judge, services.budget)


def _ask(
    asker: _Asker,
    batches: Sequence[Batch],
    stored: Sequence[EvalResult],
    folder: EvaluationFolder,
    progress: Progress,
) -> list[EvalResult]:
    """Ask the missing batches; store each before the next one is asked."""
    new: list[EvalResult] = []
    limit = asker.rollout.recipe.budget.max_failed_share
    for method in dict.fromkeys(batch.method for batch in batches):
        mine = [batch for batch in batches if batch.method == method]
        total = sum(len(batch.questions) for batch in mine)
        with progress(f"evaluating {method}", total, asker.budget.snapshot) as advance:
            for batch in mine:
                results = _ask_batch(asker, batch)
                so_far = [r for r in (*stored, *new, *results) if r.method == method]
                judge_failure = asker.judge.last_failure if asker.judge else None
                check_failures(so_far, limit, judge_failure, NEXT_STEP)
                folder.append(ANSWERS, [result.as_json() for result in results])
                new += results
                advance(len(results))
    return new


def _ask_batch(asker: _Asker, batch: Batch) -> list[EvalResult]:
    """Answer one batch and score the answers, with their time and their share of the cost."""
    paid = asker.budget.snapshot().total.usd
    recipe = asker.rollout.recipe
    sampling = start_batch(batch, recipe, on_server=recipe.policy.endpoint.url is not None)
    started = time.perf_counter()
    results = answer_questions(asker.rollout, batch.questions, batch.method, sampling)
    seconds = round(time.perf_counter() - started, 4)
    if asker.judge:
        results = judge_answers(results, batch.questions, asker.judge)
    usd = (asker.budget.snapshot().total.usd - paid) / len(results)
    return [
        replace(
            result,
            usd=usd,
            seconds=seconds if result.seconds is None else result.seconds,
            sample=batch.sample,
        )
        for result in results
    ]
