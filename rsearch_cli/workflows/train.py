"""Train a search agent: check, open, evaluate, train, evaluate again, summarise, publish."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.compat.isolation import stdout_to_log
from rsearch_cli.distributed import is_main, world_size
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.files import METRICS, VALIDATION
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.evaluations import evaluate, summarise_run
from rsearch_cli.training.resume import rewind
from rsearch_cli.training.run import TrainingRun, count_steps, make_training, open_run
from rsearch_cli.ui.training_display import TrainingDisplay
from rsearch_cli.workflows.estimate import check_memory
from rsearch_cli.workflows.publish import check_push, push_if_asked
from rsearch_cli.workflows.view import write_view

logger = logging.getLogger(__name__)

PHASES = ("start", "before", "training", "after")
"""Phases of a run, in the order in which their seconds are recorded in `summary.json`."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """A finished run: its folder, `summary.json`, the metrics and the greedy results.

    Attributes:
        view: The file to look into it with (see `workflows.view`), or None.
    """

    folder: Path
    view: Path | None
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    before: list[EvalResult]
    after: list[EvalResult]


def train(
    recipe: Recipe,
    output_dir: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_report: Callable[[TrainingReport], None] = lambda report: None,
) -> TrainingReport:
    """Train the policy of a recipe and evaluate it before and after; progress goes to stderr.

    Args:
        recipe: All settings of the run.
        output_dir: The run folder; None takes the recipe's `output_dir`.
        resume: Continue from the last checkpoint in the folder.
        overwrite: Replace the run in the folder.
        force: Train even if the run is predicted not to fit in the GPU's memory.
        on_report: Called with the report before the run is published.

    Raises:
        RsearchError: The run cannot start or continue; what is finished stays in the run folder.
    """
    started = time.monotonic()
    folder = RunFolder(Path(output_dir or recipe.output_dir))
    # A resumed run must find its folder again, whatever name the recipe file has there.
    recipe = recipe.model_copy(update={"output_dir": str(folder.path)})
    if world_size() == 1:  # else the launcher has checked, once for all processes
        check(recipe, force=force)
    with (
        stdout_to_log("libraries"),
        open_run(recipe, folder, overwrite=overwrite, resume=resume) as run,
    ):
        marks = [started, time.monotonic()]
        before = evaluate(run, "before", reuse=resume)
        marks.append(time.monotonic())
        steps = train_policy(run, resume=resume, afterwards=marks[2] - marks[1])
        marks.append(time.monotonic())
        after = evaluate(run, "after")
        marks.append(time.monotonic())
        # A resumed run has done only a part of each.
        taken = None if resume else dict(zip(PHASES, _differences(marks), strict=True))
        summary = summarise_run(run, before, after, steps, marks[-1] - started, taken)
    rows, validations = folder.read_rows(METRICS), folder.read_rows(VALIDATION)
    view = write_view_of(folder) if is_main() else None
    report = TrainingReport(
        folder.path, view, summary, rows, validations, before.greedy, after.greedy
    )
    if is_main():
        try:
            on_report(report)
        finally:  # publish even if the reader of the report has gone away
            push_if_asked(recipe, folder.path)
    return report


def write_view_of(folder: RunFolder) -> Path | None:
    """Write the file to look into a finished run with; if that fails, log why."""
    try:
        return write_view([folder.path])
    except Exception as error:  # whatever it is, the report and the publication must follow
        logger.warning(f"the run is complete, but view.html could not be written: {error}")
        return None


def check(recipe: Recipe, *, force: bool = False) -> None:
    """Check what can be checked before anything is opened: GPU memory and the publishing rights.

    Raises:
        DoesNotFit: The run is predicted not to fit, and `force` is not set.
        PublishError: The run could not be published when it is finished.
    """
    check_memory(recipe, force=force)
    check_push(recipe)


def _differences(marks: Sequence[float]) -> list[float]:
    return [round(after - before, 2) for before, after in itertools.pairwise(marks)]


def train_policy(run: TrainingRun, *, resume: bool, afterwards: float = 0.0) -> int:
    """Train, continuing from the last usable checkpoint if `resume`; return the run's steps.

    Args:
        run: The opened run.
        resume: Whether to continue.
        afterwards: Seconds that the evaluation after training will take, for the display.

    Raises:
        Interrupted: Ctrl-C; the current step has been finished and saved.
        Terminated: The same for SIGTERM.
        HungUp: The same for SIGHUP.
    """
    checkpoint = rewind(run.folder, run.recipe) if resume else None
    steps = count_steps(run)
    with (
        TrainingDisplay(steps, run.budget.snapshot, afterwards=afterwards) as display,
        run.interrupts.deferred(display.status),
    ):
        make_training(run, [display, run.tracker]).run(checkpoint)
    if run.stop_wanted():
        raise run.interrupts.as_error(f"after a complete step; {run.folder.describe_resume()}")
    return steps
