"""How far is `rsearch estimate --calibrate` from what a run then takes?

Trains twice, a short run to calibrate with and another one with other numbers of steps, rows and
questions, and compares what is predicted for the second with what it took. Time is counted in
seconds of processor time of one thread, which other work on the machine does not change much;
without other work it is about that of the clock. What the first step of either run takes longer
than the mean of the others is counted as part of the start, as the prediction does. The last line
on stdout is one JSON object.

Usage:  python benchmarks/time_estimate.py OUT [--recipe NAME] [--short SET...] [--long SET...]
        (OUT receives both run folders; a run that is there already is not trained again)
"""

from __future__ import annotations

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SHORT = ["train.max_steps=5", "evaluate.limit=40"]
LONG = [
    "train.max_steps=12",
    "train.batch_size=32",
    "evaluate.limit=100",
    "evaluate.every_steps=6",
    "evaluate.slice=32",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="Folder for both runs.")
    parser.add_argument("--recipe", default="quickstart", help="Recipe to train.")
    parser.add_argument("--short", nargs="*", default=SHORT, help="Settings of the short run.")
    parser.add_argument("--long", nargs="*", default=LONG, help="Settings of the other one.")
    given = parser.parse_args()
    both = {"short": given.short, "long": given.long}
    for name, settings in both.items():
        # Each in a process of its own: both import what they need.
        if not (given.out / name / "summary.json").exists():
            run = get_context("spawn").Process(
                target=train, args=(given.recipe, settings, given.out / name)
            )
            run.start()
            run.join()
    print(json.dumps(compare(given.recipe, given.long, *(given.out / name for name in both))))


def count_processor_time() -> None:
    """Let the modules that measure a run read the processor's clock, and compute in one thread.

    The processor time of a process is the sum of its threads'.
    """
    # Before they are imported, because one keeps the clock as a default.
    time.perf_counter = time.process_time
    import torch

    from rsearch_cli.workflows import train as training

    training.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
    torch.set_num_threads(1)


def train(recipe: str, settings: list[str], folder: Path) -> None:
    """Train in a folder."""
    count_processor_time()
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.workflows.train import train as run

    run(load_recipe(recipe, settings).recipe, folder, overwrite=True)


def compare(recipe: str, settings: list[str], short: Path, long: Path) -> dict[str, Any]:
    """Return predicted and measured seconds of the longer run, by part and in all."""
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.timing.calibration import read_run
    from rsearch_cli.timing.prediction import PARTS
    from rsearch_cli.workflows.estimate import estimate

    told = estimate(load_recipe(recipe, settings).recipe, calibrate=short).time
    assert not isinstance(told, str), told
    run = read_run(long)
    measured = {part: seconds * (run.steps + 1) for part, seconds in run.step.items()} | {
        "start": run.phases["start"],
        "evaluation before": run.phases["before"],
        "evaluation after": run.phases["after"],
        "validations": sum(row["seconds"] for row in read(long / "validation.jsonl")),
    }
    total, took = sum(told.seconds.values()), sum(measured.values())
    return {
        "recipe": recipe,
        "settings": settings,
        "predicted_seconds": round(total, 1),
        "measured_seconds": round(took, 1),
        "error": round(total / took - 1, 3),
        "parts": {
            part: {"predicted": round(told.seconds[part], 1), "measured": round(measured[part], 1)}
            for part in PARTS
        },
    }


def read(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file; [] without it."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
