"""What a training run measured: how long its rows were, and how long each part took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rsearch_cli.errors import UsageError
from rsearch_cli.memory.workload import Backend
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import (
    ENVIRONMENT,
    METRICS,
    RECIPE,
    SUMMARY,
    TRAJECTORIES,
    predictions_name,
)
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.timing.devices import CPU, Device, describe_run_device
from rsearch_cli.timing.lengths import Lengths, measure_lengths
from rsearch_cli.timing.prediction import START, STEP_PARTS


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A training run as it was measured.

    Attributes:
        recipe: Its settings.
        backend: What ran its model.
        device: What it ran on.
        lengths: How long its rows were.
        step: Mean seconds of each of `STEP_PARTS`; the first step is left out, since it compiles.
        steps: Steps that this is the mean of.
        ties: Share in [0, 1] of the groups that were replaced, or could have been.
        evaluated: Questions of its evaluations.
        phases: Seconds of `start`, `before` and `after`; {} before the run has ended. `start` has
            also what the first step took longer than the others.
    """

    recipe: Recipe
    backend: Backend
    device: Device
    lengths: Lengths
    step: dict[str, float]
    steps: int
    ties: float
    evaluated: int
    phases: dict[str, float]


def read_run(path: Path) -> MeasuredRun:
    """Return what a run measured.

    Raises:
        UsageError: It is no GRPO run, or has finished no step after the first.
        RsearchError: One of its files cannot be read.
    """
    folder = RunFolder(path)
    if not folder.is_started:
        raise UsageError(f"--calibrate: {path} is not a run folder (no {RECIPE})")
    rows, lengths = folder.read_rows(METRICS), measure_lengths(folder.read_rows(TRAJECTORIES))
    timed = [row for row in rows[1:] if all(f"seconds/{part}" in row for part in STEP_PARTS)]
    if not timed or lengths is None:
        raise UsageError(
            f"--calibrate: {path} has no step after the first, which compiles; give a GRPO run of "
            "two steps or more, such as one of --max-steps 5"
        )
    recipe = load_recipe(str(path / RECIPE), trusted=True).recipe
    environment, summary = folder.read_json(ENVIRONMENT), folder.read_json(SUMMARY)
    step = {part: fmean(float(row[f"seconds/{part}"]) for row in timed) for part in STEP_PARTS}
    phases = {name: float(value) for name, value in (summary.get("phase_seconds") or {}).items()}
    if START in phases:
        first = sum(float(rows[0].get(f"seconds/{part}") or 0.0) for part in STEP_PARTS)
        phases[START] += max(0.0, first - sum(step.values()))
    return MeasuredRun(
        recipe=recipe,
        backend="unsloth" if environment.get("backend") == "unsloth" else "transformers",
        device=describe_run_device(str(environment.get("device", CPU.name))),
        lengths=lengths,
        step=step,
        steps=len(timed),
        ties=fmean(_tied(row, recipe) for row in timed),
        evaluated=len(folder.read_rows(predictions_name("before", "greedy"))),
        phases=phases,
    )


def _tied(row: Mapping[str, Any], recipe: Recipe) -> float:
    """Return the share of a step's groups that tied: those replaced, or all if none may be."""
    if not recipe.train.resample_ties:
        return float(row.get("groups/zero_advantage") or 0.0)
    rows = recipe.train.batch_size * recipe.train.gradient_accumulation_steps
    replaced = float(row.get("discarded/rollouts") or 0.0)
    return replaced / (rows + replaced)
