"""How far is `rsearch estimate --calibrate` from what a run then takes?

Trains twice, a short run to calibrate with and another one with other numbers of steps, rows and
questions, and compares what is predicted for the second with what it took. Time is counted in
seconds of processor time, which other work on the machine does not change much; without other work
it is that of the clock. The last line on stdout is one JSON object.

Usage:  python benchmarks/time_estimate.py OUT [--recipe NAME] [--short SET...] [--long SET...]
        (OUT receives both run folders; a run that is there already is not trained again)
"""

from __future__ import annotations

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
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
    """Let the modules that measure a run read the processor's clock."""
    from rsearch_cli.rollout import rollout
    from rsearch_cli.training import grpo, step_metrics, validation
    from rsearch_cli.workflows import train as training

    clock = SimpleNamespace(perf_counter=time.process_time, monotonic=time.process_time)
    for module in (rollout, grpo, step_metrics, validation, training):
        module.time = clock  # type: ignore[attr-defined]


def train(recipe: str, settings: list[str], folder: Path) -> None:
    """Train in a folder."""
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.workflows.train import train as run

    count_processor_time()
    run(load_recipe(recipe, settings).recipe, folder, overwrite=True)


def compare(recipe: str, settings: list[str], short: Path, long: Path) -> dict[str, Any]:
    """Return predicted and measured seconds of the longer run, by part and in all."""
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.timing.prediction import PARTS, STEP_PARTS
    from rsearch_cli.workflows.estimate import estimate

    told = estimate(load_recipe(recipe, settings).recipe, calibrate=short).time
    assert not isinstance(told, str), told
    rows, validations = (read(long / f"{name}.jsonl") for name in ("metrics", "validation"))
    # The first step began before the processor's clock was read.
    measured = {p: fmean(r[f"seconds/{p}"] for r in rows[1:]) * len(rows) for p in STEP_PARTS}
    phases = json.loads((long / "summary.json").read_text())["phase_seconds"]
    measured |= {
        "start": phases["start"],
        "evaluation before": phases["before"],
        "evaluation after": phases["after"],
        "validations": sum(row["seconds"] for row in validations),
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
