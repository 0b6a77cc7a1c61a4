"""The evaluations before and after training, and the run's `summary.json`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rsearch_cli.distributed import world_size
from rsearch_cli.evaluation.format_problem import find_format_problem
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.training_evaluation import (
    Evaluation,
    evaluate_policy,
    summarise_difference,
    summarise_evaluation,
)
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import METRICS, SUMMARY, predictions_name
from rsearch_cli.training.alarms import first_alarms
from rsearch_cli.training.run import TrainingRun
from rsearch_cli.training.validation import read_best
from rsearch_cli.ui.progress import phase

logger = logging.getLogger(__name__)


def evaluate(run: TrainingRun, name: str, *, reuse: bool = False) -> Evaluation:
    """Evaluate the policy and store the results; `reuse` complete stored ones instead."""
    folder, questions = run.folder, run.evaluated
    kinds = ("greedy", "sampled") if run.recipe.evaluate.sampled else ("greedy",)
    files = {kind: predictions_name(name, kind) for kind in kinds}
    if reuse:
        stored: dict[str, list[EvalResult]] = {}
        for kind, file in files.items():
            with folder.reading(file):
                stored[kind] = [EvalResult.from_json(row) for row in folder.read_rows(file)]
        if all(len(results) == len(questions) for results in stored.values()):
            return Evaluation(stored["greedy"], stored.get("sampled"))
    total = len(questions) * len(kinds)
    with phase(f"evaluating {name} training", total, run.budget.snapshot) as advance:
        evaluation = evaluate_policy(run.rollout, questions, advance)
    for kind, file in files.items():
        folder.write_rows(file, [result.as_json() for result in getattr(evaluation, kind)])
    return evaluation


def summarise_discarded(rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> dict[str, Any] | None:
    """Return how many rollouts of a run were replaced, and what they cost; None if none may be.

    Args:
        rows: The rows of `metrics.jsonl`.
        recipe: The recipe of the run.
    """
    if recipe.stage != "grpo" or not recipe.train.resample_ties:
        return None
    train = recipe.train
    kept = len(rows) * train.batch_size * train.gradient_accumulation_steps * world_size()
    rollouts = sum(row.get("discarded/rollouts") or 0 for row in rows)
    return {
        "rollouts": rollouts,
        "sampled": kept + rollouts,
        "share": round(rollouts / max(1, kept + rollouts), 4),
        "usd": round(sum(row.get("discarded/usd") or 0.0 for row in rows), 6),
    }


def summarise_run(
    run: TrainingRun,
    before: Evaluation,
    after: Evaluation,
    steps: int,
    seconds: float,
    phase_seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write and track `summary.json`: both evaluations, their difference, and the run's facts."""
    recipe, folder = run.recipe, run.folder
    summary: dict[str, Any] = {}
    for name, evaluation in (("before", before), ("after", after)):
        problem = find_format_problem(evaluation.greedy, recipe)
        summary[name] = {**summarise_evaluation(evaluation), "format_problem": problem}
        if problem:
            logger.warning(f"evaluation {name} training: {problem}")
    spend = run.budget.snapshot().services
    rows = folder.read_rows(METRICS)
    summary |= {
        "difference": summarise_difference(before, after),
        "questions": run.questions.description,
        "chosen": run.choice and run.choice.as_json(),
        "split": recipe.evaluate.split,
        "model": recipe.policy.model,
        "backend": run.policy.backend,
        "stage": recipe.stage,
        "steps": steps,
        "traces": run.sft_dataset.summarise(recipe) if run.sft_dataset else None,
        "kept": recipe.train.keep,
        "best": read_best(folder),
        "discarded": summarise_discarded(rows, recipe),
        "alarms": first_alarms(rows),
        "seed": recipe.seed,
        "spend": {name: asdict(spent) for name, spent in spend.items()},
        "seconds": round(seconds, 1),
        "phase_seconds": phase_seconds,
    }
    folder.write_json(SUMMARY, summary)
    run.tracker.log_summary(summary)
    return summary
