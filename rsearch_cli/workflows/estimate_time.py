"""How long a training run will take: on a card by its data sheet, or from a measured run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError, UsageError
from rsearch_cli.memory.shape import find_shape
from rsearch_cli.memory.workload import Backend
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.prices import outside_load
from rsearch_cli.timing.calibration import MeasuredRun, read_run
from rsearch_cli.timing.devices import DEVICES, THIS, Device, find_device
from rsearch_cli.timing.lengths import expect_lengths
from rsearch_cli.timing.prediction import (
    BEFORE,
    GENERATE,
    PARTS,
    START,
    START_SECONDS,
    STEP_PARTS,
    Services,
    TimeModel,
)
from rsearch_cli.timing.sources import Constant, list_constants

SHORT, LONG = 0.3, 1.0
"""Shares of `rollout.max_new_tokens` that rows write at the ends of the range."""

FASTER, SLOWER = 0.75, 1.35
"""Ends of the range of the model itself. It misses the update of a 7B on an H200 by 19 %, and hosts
differ by about a third in a single thread, which most of a step waits for."""

CALIBRATED = 1.2
"""Factor to both ends of the range after a calibration (see docs/measurements.md)."""


@dataclass(frozen=True, slots=True)
class PredictedTime:
    """The time of a run, part by part.

    Attributes:
        device: What it is predicted for.
        backend: The back end.
        seconds: Seconds of each part, in the order of `timing.prediction.PARTS`.
        low: The same if all goes fast.
        high: The same if all goes slowly.
        measured: The run that it was calibrated with, or None.
    """

    device: Device
    backend: Backend
    seconds: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    measured: MeasuredRun | None

    def as_json(self) -> dict[str, Any]:
        """The parts and their sums in hours, ready for JSON."""
        columns = {"hours": self.seconds, "hours_low": self.low, "hours_high": self.high}
        return {
            "card": self.device.name,
            "calibrated": self.measured is not None,
            **{name: _hours(sum(values.values())) for name, values in columns.items()},
            "parts": {
                part: {name: _hours(values[part]) for name, values in columns.items()}
                for part in PARTS
            },
            "constants": [asdict(constant) for constant in self.constants],
        }

    @property
    def constants(self) -> list[Constant]:
        """What the prediction rests on; [] with a measured run."""
        return [] if self.measured else list_constants(self.device, self.backend)


def predict_time(
    recipe: Recipe,
    evaluated: int,
    nodes: int,
    written: float,
    card: str | None,
    run: Path | None,
    backend: Backend,
) -> PredictedTime | str:
    """Predict the time of a training run, or say why it cannot be predicted.

    Args:
        recipe: The run.
        evaluated: Questions of the evaluations before and after.
        nodes: Sub-queries of a search plan.
        written: Share of `rollout.max_new_tokens` that a row writes.
        card: Name of a card, or `this`; None takes the one of this machine or of the measured run.
        run: Folder of a run to calibrate with, or None.
        backend: The back end, without a measured run.

    Raises:
        UsageError: The card is not known, or the run measured nothing.
        RsearchError: A file of the run cannot be read.
    """
    if recipe.stage != "grpo":
        return "the stage is sft"
    if recipe.rollout.engine != "local":
        return f"with rollout.engine {recipe.rollout.engine} it depends on vLLM"
    measured = None if run is None else read_run(run)
    device = find_device(card or THIS) if card or measured is None else measured.device
    if device is None:
        return _unknown_device(measured)
    try:
        shape = find_shape(locate_model(recipe.policy.model))
    except PolicyError as unknown:
        return str(unknown)
    lengths = expect_lengths(recipe, nodes, written)
    model = TimeModel(shape, recipe, backend, device, lengths, evaluated, _services(recipe))
    if measured is None:
        ends = (
            replace(model, lengths=expect_lengths(recipe, nodes, share), ties=ties).seconds()
            for share, ties in ((min(SHORT, written), 0.0), (max(LONG, written), 1.0))
        )
        short, long = ends
        low = {part: value * FASTER for part, value in short.items()}
        high = {part: value * SLOWER for part, value in long.items()}
        return PredictedTime(device, backend, model.seconds(), low, high, None)
    model = _calibrate(model, measured)
    seconds = model.seconds()
    low = {part: value / CALIBRATED for part, value in seconds.items()}
    high = {part: value * CALIBRATED for part, value in seconds.items()}
    return PredictedTime(device, model.backend, seconds, low, high, measured)


def _calibrate(model: TimeModel, run: MeasuredRun) -> TimeModel:
    """Return the model with the lengths of a measured run, scaled to what that run took.

    Raises:
        UsageError: The card of the run is not known.
    """
    if run.device is None:
        raise UsageError(
            f"--calibrate: the card of the run is not one of {', '.join(DEVICES)}, so what it "
            "measured cannot be compared"
        )
    same = TimeModel(
        find_shape(locate_model(run.recipe.policy.model)),
        run.recipe,
        "unsloth" if run.backend == "unsloth" else "transformers",
        run.device,
        run.lengths,
        run.evaluated,
        _services(run.recipe),
        run.ties,
    )
    predicted = same.step()
    factors = {p: run.step[p] / predicted[p] for p in STEP_PARTS if predicted[p]}
    # Where the model expects no wait, such as for a corpus in this process.
    rows = run.recipe.train.batch_size * run.recipe.train.gradient_accumulation_steps
    per_row = {p: run.step[p] / rows for p in STEP_PARTS if not predicted[p]}
    evaluations = [run.phases[name] for name in ("before", "after") if name in run.phases]
    factors[BEFORE] = factors[GENERATE]
    if evaluations and run.evaluated:
        factors[BEFORE] = sum(evaluations) / len(evaluations) / same.evaluation()
    if START in run.phases:
        factors[START] = run.phases[START] / START_SECONDS
    return replace(
        model,
        backend=same.backend,
        lengths=run.lengths,
        ties=run.ties,
        factors=factors,
        per_row=per_row,
    )


def _services(recipe: Recipe) -> Services:
    share, limits = outside_load(recipe.search)
    return Services(
        share,
        limits.requests_per_second,
        limits.concurrency,
        judged=recipe.reward.answer == "judge",
    )


def _unknown_device(measured: MeasuredRun | None) -> str:
    """Why there is no device to predict for, and what to do about it."""
    if measured is not None:
        return "the card of the measured run is not known; name the one to predict for with --card"
    return (
        f"name a card with --card ({', '.join(DEVICES)}), or a run of this machine with "
        "--calibrate RUN, such as one of --max-steps 5"
    )


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)
