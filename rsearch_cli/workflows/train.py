"""The course of `rsearch train`: evaluate, train, evaluate again, compare.

Place in the path: the command's body; `preparation` opens everything it needs. On failure: what is
finished stays in the run folder, and `--resume` goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import gather, is_main, wait_for_all
from rsearch_cli.evaluation.format_problem import find_format_problem
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.training_evaluation import (
    Evaluation,
    evaluate_policy,
    score_slice,
    summarise_difference,
    summarise_evaluation,
)
from rsearch_cli.policy.isolation import stdout_to_log
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import METRICS, PREDICTIONS, SUMMARY, VALIDATION
from rsearch_cli.runs.run_folder import RunFolder, checkpoint_step
from rsearch_cli.training.alarms import Alarm, first_alarms
from rsearch_cli.training.checkpoints import choose_checkpoint
from rsearch_cli.training.grpo import GrpoTraining
from rsearch_cli.training.sft_dataset import learn
from rsearch_cli.training.validation import Validation, read_best
from rsearch_cli.ui.training_display import TrainingDisplay, phase
from rsearch_cli.workflows.train_setup import OpenRun, open_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a finished run is shown by."""

    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    before: list[EvalResult]
    after: list[EvalResult]
    show: int


def run_training(recipe: Recipe, path: Path, *, overwrite: bool, resume: bool) -> TrainingReport:
    """Check, load, evaluate, train, evaluate again, and write the summary.

    Raises:
        RsearchError: Any of its kinds; see the modules that are called.
    """
    started = time.monotonic()
    folder = RunFolder(path)
    with (
        stdout_to_log("libraries"),
        open_run(recipe, folder, overwrite=overwrite, resume=resume) as run,
    ):
        before = evaluate_once(run, "before", keep=resume)
        steps = train_once(run)
        after = evaluate_once(run, "after", keep=False)
        rows = folder.read_rows(METRICS)
        summary = {
            **compare_evaluations(before, after, recipe),
            "questions": run.questions.description,
            "split": recipe.evaluate.split,
            "model": recipe.policy.model,
            "backend": run.policy.backend,
            "stage": recipe.stage,
            "steps": steps,
            "traces": run.sft_dataset.trace_stats.as_row() if run.sft_dataset else None,
            "kept": recipe.train.keep,
            "best": read_best(folder),
            "alarms": first_alarms(rows),
            "seed": recipe.seed,
            "spend": {
                name: asdict(spent) for name, spent in run.budget.snapshot().services.items()
            },
            "seconds": round(time.monotonic() - started, 1),
        }
        for name in ("before", "after"):
            if problem := summary[name]["format_problem"]:
                logger.warning(f"evaluation {name} training: {problem}")
        folder.write_json(SUMMARY, summary)
        run.tracker.log_summary(summary)
    return TrainingReport(
        folder=folder.path,
        summary=summary,
        rows=rows,
        validations=folder.read_rows(VALIDATION),
        before=before.greedy,
        after=after.greedy,
        show=recipe.evaluate.show_trajectories,
    )


def evaluate_once(run: OpenRun, name: str, *, keep: bool) -> Evaluation:
    """Evaluate and store the predictions; with `keep`, take stored ones where they are whole."""
    recipe, folder, questions = run.recipe, run.folder, run.evaluated
    files = {kind: f"{PREDICTIONS}/{name}-{kind}.jsonl" for kind in ("greedy", "sampled")}
    if keep:
        kept = {}
        for kind, file in files.items():
            with folder.reading(file):
                kept[kind] = [EvalResult.from_json(row) for row in folder.read_rows(file)]
        wanted = {"greedy": len(questions)}
        wanted["sampled"] = len(questions) if recipe.evaluate.sampled else 0
        if all(len(kept[kind]) == count for kind, count in wanted.items()):
            return Evaluation(kept["greedy"], kept["sampled"] or None)
    total = len(questions) * (2 if recipe.evaluate.sampled else 1)
    with phase(f"evaluating {name} training", total, run.budget.snapshot) as advance:
        evaluation = evaluate_policy(run.rollout, questions, advance)
    for kind, predictions in (("greedy", evaluation.greedy), ("sampled", evaluation.sampled)):
        if predictions:
            folder.write_rows(files[kind], [p.as_json() for p in predictions])
    return evaluation


def train_once(run: OpenRun) -> int:
    """Train in the recipe's stage; a resumed run goes on from its last whole checkpoint.

    Returns:
        The optimiser steps of the whole run.

    Raises:
        Interrupted: Ctrl-C came; the step under way is finished and saved.
        Terminated: The same for SIGTERM.
        HungUp: The same for SIGHUP.
    """
    chosen = choose_checkpoint(run.folder) if run.resume and is_main() else None
    checkpoint = gather(chosen)[0]
    if run.resume:
        train = run.recipe.train
        rollouts = train.batch_size * train.gradient_accumulation_steps
        step = checkpoint_step(checkpoint) if checkpoint else 0
        for line in run.folder.keep_rows_until(step, rollouts):
            logger.warning(line)
        wait_for_all()
    if run.sft_dataset:
        steps = learn(run.policy, run.sft_dataset, run.recipe, run.folder, checkpoint, run.signals)
    else:
        steps = run.recipe.train.max_steps
        reinforce(run, checkpoint)
    if any(gather(run.signals.received)):
        raise run.signals.stop(f"after a whole step; {run.folder.describe_resume()}")
    return steps


def reinforce(run: OpenRun, checkpoint: Path | None) -> None:
    """Train by GRPO under the live display, from a checkpoint where there is one."""
    recipe, folder, tracker = run.recipe, run.folder, run.tracker
    with (
        TrainingDisplay(recipe.train.max_steps, run.budget.snapshot) as display,
        run.signals.patiently(display.status),
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

        def score() -> Mapping[str, Any]:
            with run.signals.at_once():
                return score_slice(run.rollout, run.validated)

        validation = None
        if recipe.evaluate.every_steps:
            validation = Validation(
                score,
                folder,
                recipe.evaluate.every_steps,
                recipe.train.max_steps,
                show_validation,
            )
        training = GrpoTraining(
            run.policy,
            run.rollout,
            run.trained,
            recipe,
            folder,
            show,
            run.judge,
            run.budget,
            stop_wanted=lambda: any(gather(run.signals.received)),
            validation=validation,
            on_alarm=warn,
        )
        training.run(checkpoint)


def compare_evaluations(before: Evaluation, after: Evaluation, recipe: Recipe) -> dict[str, Any]:
    """The two evaluations and their paired difference, as `summary.json` holds them."""

    def summarise_one(evaluation: Evaluation) -> dict[str, Any]:
        problem = find_format_problem(evaluation.greedy, recipe)
        return {**summarise_evaluation(evaluation), "format_problem": problem}

    return {
        "before": summarise_one(before),
        "after": summarise_one(after),
        "difference": summarise_difference(before, after),
    }
