"""How long a training run will take: on a card by its data sheet, or from a measured run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError, UsageError
from rsearch_cli.memory.driver import list_cards
from rsearch_cli.memory.shape import find_shape
from rsearch_cli.memory.workload import Backend
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.evaluation_folder import setting_differences
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

FASTER, SLOWER = 0.75, 1.6
"""Ends of the range of the model itself. It says 19 % too much for the update of a 7B on an H200;
on the slower host of an H100, which most of a step waits for, a step took up to 1.6 times as long
as it says (docs/measurements.md)."""

CALIBRATED = 1.2
"""Factor to both ends of the range after a calibration (see docs/measurements.md)."""

_SHARED: Any = {
    "policy": {
        **dict.fromkeys(
            ("load_in_4bit", "dtype", "max_seq_length", "gradient_checkpointing"), True
        ),
        "lora": {"r", "dropout", "target_modules"},
    },
    "questions": {"source"},
    "protocol": True,
    "search": {
        "sources": {"__all__": {"type"}},
        "top_k": True,
        "passage_chars": True,
        "read_top": True,
    },
    "rollout": {
        *("engine", "max_turns", "max_new_tokens", "open_thought", "temperature", "top_p"),
        "reuse_cache",
    },
    "reward": {"answer"},
}
"""Settings that a run must share with the one it calibrates, beside model, device and back end: how
long rows get and what is waited for depends on them. Steps, batch and evaluations may differ."""

_SHOWN, _SHOWN_CHARS = 3, 40


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
        UsageError: The card is not known, or the run measured nothing, or something else.
        RsearchError: A file of the run cannot be read.
    """
    if unknown := _explain_unpredictable(recipe):
        return unknown
    measured = None if run is None else read_run(run)
    device = find_device(card or THIS) if card or measured is None else measured.device
    if device is None:
        return _explain_unknown_card(calibrated=measured is not None)
    if run is not None and measured is not None:
        _require_same(run, measured, recipe, device, backend)
    try:
        shape = find_shape(locate_model(recipe.policy.model))
    except PolicyError as unreadable:
        return str(unreadable)
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


def _require_same(
    path: Path, run: MeasuredRun, recipe: Recipe, device: Device, backend: Backend
) -> None:
    """Refuse a run whose lengths or seconds say nothing about this one.

    Raises:
        UsageError: Model, device, back end or another setting that both depend on is not the same.
    """
    differing: dict[str, tuple[Any, Any]] = {}
    for name in ("model", "adapter"):
        theirs, ours = getattr(run.recipe.policy, name), getattr(recipe.policy, name)
        if not _names_same_weights(theirs, ours):
            differing[f"policy.{name}"] = theirs, ours
    if run.device.name != device.name:
        differing["device"] = run.device.name, device.name
    expected = run.backend if run.recipe.policy.backend == recipe.policy.backend else backend
    if run.backend != expected:
        differing["back end"] = run.backend, expected
    if not differing:
        settings = (each.model_dump(mode="json", include=_SHARED) for each in (run.recipe, recipe))
        differing = setting_differences(*settings)
    if not differing:
        return
    shown = [
        f"{name} ({_shorten(theirs)} there, {_shorten(ours)} here)"
        for name, (theirs, ours) in list(differing.items())[:_SHOWN]
    ]
    more = [f"{len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
    raise UsageError(
        f"--calibrate: {path} differs from the run to predict in {', '.join(shown + more)}; "
        "calibrate with a few steps of this recipe on the same device: rsearch train --recipe NAME "
        "--max-steps 5"
    )


def _names_same_weights(first: str | None, second: str | None) -> bool:
    """Whether two settings mean the same model; a folder may have another path elsewhere."""
    if first is None or second is None or first == second:
        return first == second
    paths = [Path(name).expanduser() for name in (first, second)]
    if all(path.exists() for path in paths):
        return paths[0].samefile(paths[1])
    return paths[0].name == paths[1].name


def _shorten(value: Any) -> str:
    return shorten(flatten("null" if value is None else str(value)), _SHOWN_CHARS)


def _calibrate(model: TimeModel, run: MeasuredRun) -> TimeModel:
    """Return the model with the lengths of a measured run, scaled to what that run took."""
    model = replace(model, backend=run.backend, lengths=run.lengths, ties=run.ties)
    same = replace(
        model, recipe=run.recipe, evaluated=run.evaluated, services=_services(run.recipe)
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
    return replace(model, factors=factors, per_row=per_row)


def _services(recipe: Recipe) -> Services:
    share, limits = outside_load(recipe.search)
    return Services(
        share,
        limits.requests_per_second,
        limits.concurrency,
        judged=recipe.reward.answer == "judge",
    )


def _explain_unpredictable(recipe: Recipe) -> str | None:
    """Return why the time of a recipe is not predicted, or None if it is."""
    later = "not even with --calibrate; rsearch train shows the time left after its first step"
    if recipe.stage != "grpo":
        return f"stage {recipe.stage} has no model of time, {later}"
    if (engine := recipe.rollout.engine) != "local":
        return f"rollout.engine {engine} has no model of time, {later}"
    return None


def _explain_unknown_card(*, calibrated: bool) -> str:
    """Return why this machine is no device to predict for, and what to do about it."""
    cards = list_cards()
    here = (
        f"no card like this machine's {cards[0].name} is known"
        if cards
        else "this machine has no NVIDIA card"
    )
    if calibrated:
        return f"{here}; leave --card out to predict for the device of the run"
    return (
        f"{here}; name a card with --card ({', '.join(DEVICES)}), or a run of this machine with "
        "--calibrate RUN, such as one of --max-steps 5"
    )


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 4)
