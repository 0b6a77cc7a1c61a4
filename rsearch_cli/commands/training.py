"""The course of `rsearch train`, from checks to report.

Place in the path: the command's body; it opens question set, sources, policy and run folder in the
order in which they can fail, and hands them to training and evaluation. On failure: whatever is
wrong with the input is raised before the model is loaded; the run folder changes only after that.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from rsearch_cli.errors import DataEmpty, RunFolderError
from rsearch_cli.evaluate.evaluation import Evaluation, evaluate_rollouts
from rsearch_cli.evaluate.metrics import Prediction, compare, summarise
from rsearch_cli.evaluate.validation import load_slice, score_slice
from rsearch_cli.policy.loading import load_policy, locate_model
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.vllm_engine import check_engine
from rsearch_cli.questions.sets import QuestionSet, open_question_set
from rsearch_cli.recipe.alarms import Alarms
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.recipe.outside import Budget, Cache, Service, Wandb
from rsearch_cli.recipe.policy import Rollout as RolloutSettings
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.judge import AnswerJudge, open_judge
from rsearch_cli.rollout import Rollout
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.open import Services, open_services
from rsearch_cli.services.purse import Purse
from rsearch_cli.train.alarms import Alarm, first_alarms
from rsearch_cli.train.checkpoints import choose_checkpoint
from rsearch_cli.train.display import TrainingDisplay, phase
from rsearch_cli.train.environment import describe_environment
from rsearch_cli.train.grpo import GrpoTraining
from rsearch_cli.train.run_folder import (
    ENVIRONMENT,
    METRICS,
    PREDICTIONS,
    RECIPE,
    SUMMARY,
    VALIDATION,
    RunFolder,
    checkpoint_step,
)
from rsearch_cli.train.signals import StopSignals
from rsearch_cli.train.tracking import Tracker, open_tracker
from rsearch_cli.train.validation import Validation, read_best
from rsearch_cli.types import Question


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a finished run is shown by."""

    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    before: list[Prediction]
    after: list[Prediction]
    show: int


def run_training(recipe: Recipe, path: Path, *, overwrite: bool, resume: bool) -> TrainingReport:
    """Check, load, evaluate, train, evaluate again, and write the summary.

    Raises:
        RsearchError: Any of its kinds; see the modules that are called.
    """
    started = time.monotonic()
    folder = RunFolder(path)
    folder.check(overwrite=overwrite, resume=resume)
    if resume:
        check_same_recipe(folder, recipe)
    locate_model(recipe.policy.model)
    check_engine(recipe.policy, recipe.rollout)
    question_set = open_question_set(recipe.questions, recipe.seed)
    asked = question_set.load(recipe.evaluate.split, recipe.evaluate.limit)
    trained_on = distinct_questions(
        question_set.load(recipe.questions.train_split, recipe.questions.max_samples)
    )
    validated_on = load_slice(question_set, recipe, asked)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals(folder.describe_resume))
        say("opening the search sources")
        services = stack.enter_context(open_services(recipe, folder.path))
        executor = stack.enter_context(open_executor(recipe, question_set, services))
        judge = open_judge(recipe, services)
        if judge:
            stack.enter_context(judge)
        say(f"loading {recipe.policy.model}")
        quieten_libraries()
        policy = load_policy(recipe.policy, recipe.seed, recipe.rollout)
        rollout = Rollout(policy, executor, recipe)
        folder.open(resume=resume)
        folder.write_text(RECIPE, dump_recipe(recipe))
        if not (folder.path / ENVIRONMENT).exists():
            folder.write_json(ENVIRONMENT, describe_environment(recipe.seed, policy.backend))
        tracker = stack.enter_context(open_tracker(recipe, folder, say))
        purse = services.purse
        before = evaluate_once(rollout, asked, recipe, folder, purse, "before", keep=resume)
        train_once(
            policy,
            rollout,
            trained_on,
            validated_on,
            recipe,
            folder,
            judge,
            purse,
            tracker,
            signals,
            resume=resume,
        )
        after = evaluate_once(rollout, asked, recipe, folder, purse, "after", keep=False)
        rows = folder.read_rows(METRICS)
        summary = {
            **compare_evaluations(before, after),
            "questions": question_set.description,
            "split": recipe.evaluate.split,
            "model": recipe.policy.model,
            "backend": policy.backend,
            "steps": recipe.train.max_steps,
            "kept": recipe.train.keep,
            "best": read_best(folder),
            "alarms": first_alarms(rows),
            "seed": recipe.seed,
            "spend": {name: asdict(spent) for name, spent in purse.snapshot().services.items()},
            "seconds": round(time.monotonic() - started, 1),
        }
        folder.write_json(SUMMARY, summary)
        tracker.log_summary(summary)
    return TrainingReport(
        folder=folder.path,
        summary=summary,
        rows=rows,
        validations=folder.read_rows(VALIDATION),
        before=before.greedy,
        after=after.greedy,
        show=recipe.evaluate.show_trajectories,
    )


@contextmanager
def open_executor(
    recipe: Recipe, question_set: QuestionSet, services: Services
) -> Iterator[PlanExecutor]:
    """The search layer of a recipe: its sources, and what carries plans out against them."""
    offline = recipe.cache.mode == "offline"
    sources = open_sources(recipe.search, question_set.corpus, offline=offline)
    with PlanExecutor(sources, recipe.search, services) as executor:
        yield executor


def evaluate_once(
    rollout: Rollout,
    questions: Sequence[Question],
    recipe: Recipe,
    folder: RunFolder,
    purse: Purse,
    name: str,
    *,
    keep: bool,
) -> Evaluation:
    """Evaluate and store the predictions; with `keep`, take stored ones where they are whole."""
    files = {kind: f"{PREDICTIONS}/{name}-{kind}.jsonl" for kind in ("greedy", "sampled")}
    if keep:
        kept = {
            kind: [Prediction.from_json(row) for row in folder.read_rows(file)]
            for kind, file in files.items()
        }
        wanted = {"greedy": len(questions)}
        wanted["sampled"] = len(questions) if recipe.evaluate.sampled else 0
        if all(len(kept[kind]) == count for kind, count in wanted.items()):
            return Evaluation(kept["greedy"], kept["sampled"] or None)
    total = len(questions) * (2 if recipe.evaluate.sampled else 1)
    with phase(f"evaluating {name} training", total, purse.snapshot) as advance:
        evaluation = evaluate_rollouts(rollout, questions, recipe, advance)
    for kind, predictions in (("greedy", evaluation.greedy), ("sampled", evaluation.sampled)):
        if predictions:
            folder.write_rows(files[kind], [p.as_json() for p in predictions])
    return evaluation


def train_once(
    policy: LocalPolicy,
    rollout: Rollout,
    questions: Sequence[Question],
    validated_on: Sequence[Question],
    recipe: Recipe,
    folder: RunFolder,
    judge: AnswerJudge | None,
    purse: Purse,
    tracker: Tracker,
    signals: StopSignals,
    *,
    resume: bool,
) -> None:
    """Train under the live display; with `resume`, from the last whole checkpoint.

    Raises:
        Interrupted: Ctrl-C came; the step under way is finished and saved.
        Terminated: The same for SIGTERM.
    """
    checkpoint = choose_checkpoint(folder, say) if resume else None
    if resume:
        folder.keep_rows_until(checkpoint_step(checkpoint) if checkpoint else 0)
    with (
        TrainingDisplay(recipe.train.max_steps, purse.snapshot) as display,
        signals.patiently(display.status),
    ):

        def show(row: dict[str, Any], rollouts: list[dict[str, Any]]) -> None:
            first = rollouts[0]
            text = first["opening"] + "".join(segment["text"] for segment in first["segments"])
            display.update(row, text)
            tracker.log_step(row, rollouts)

        def show_validation(row: dict[str, Any], best: dict[str, Any]) -> None:
            display.validated(row, best)
            tracker.log_validation(row, best)

        def warn(step: int, alarm: Alarm) -> None:
            display.warn(f"alarm after step {step}: {alarm.line} (alarms.{alarm.name})")

        validation = None
        if recipe.evaluate.every_steps:
            validation = Validation(
                lambda: score_slice(rollout, validated_on, recipe),
                folder,
                recipe.evaluate.every_steps,
                recipe.train.max_steps,
                show_validation,
            )
        training = GrpoTraining(
            policy,
            rollout,
            questions,
            recipe,
            folder,
            show,
            judge,
            purse,
            stop_wanted=lambda: signals.received,
            validation=validation,
            on_alarm=warn,
        )
        training.run(checkpoint)
    if signals.received:
        raise signals.stop(f"after a whole step; {folder.describe_resume()}")


def compare_evaluations(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """The two evaluations and their paired difference, as `summary.json` holds them."""
    return {
        "before": summarise(before.greedy, before.sampled),
        "after": summarise(after.greedy, after.sampled),
        "difference": compare(before.greedy, before.sampled, after.greedy, after.sampled),
    }


def distinct_questions(questions: Sequence[Question]) -> list[Question]:
    """Drop questions whose text came before: TRL hands prompts back by their text alone.

    Raises:
        DataEmpty: If there is nothing to train on.
    """
    distinct = {q.text: q for q in reversed(questions)}
    if not distinct:
        raise DataEmpty("the training split holds no question; check questions.difficulty")
    if len(distinct) < len(questions):
        say(f"dropped {len(questions) - len(distinct)} training questions that were asked twice")
    return [q for q in questions if distinct[q.text] is q]


def check_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Refuse to resume with settings other than those the run was started with.

    What alters no result may change, for a run that it stopped could not go on otherwise: what may
    be spent, how cache and services are used, how many completions are generated at once, when an
    alarm is raised, where the run is tracked and where it lies.

    Raises:
        RunFolderError: Naming the first setting that differs.
    """
    path = folder.path / RECIPE
    stored = dump_recipe(without_limits(load_recipe(str(path)).recipe)).splitlines()
    given = dump_recipe(without_limits(recipe)).splitlines()
    for old, new in zip(stored, given, strict=False):
        if old != new:
            raise RunFolderError(
                f"{path} has {old.strip()!r} where this run has {new.strip()!r}; "
                f"resume with --recipe {path}"
            )


def without_limits(recipe: Recipe) -> Recipe:
    """The recipe with all that a resumed run may change at its default."""
    judge = recipe.reward.judge.model_copy(update={"service": Service()})
    defaults = RolloutSettings()
    at_once = {
        name: getattr(defaults, name)
        for name in ("micro_batch", "micro_batch_tokens", "reuse_cache")
    }
    sections = {
        "output_dir": "",
        "budget": Budget(),
        "cache": Cache(),
        "alarms": Alarms(),
        "wandb": Wandb(),
        "search": recipe.search.model_copy(update={"service": Service()}),
        "reward": recipe.reward.model_copy(update={"judge": judge}),
        "rollout": recipe.rollout.model_copy(update=at_once),
    }
    return recipe.model_copy(update=sections)


def quieten_libraries() -> None:
    """Keep the progress bars and notices of other libraries out of ours."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def say(line: str) -> None:
    """Tell on stderr what is under way."""
    typer.echo(line, err=True)
