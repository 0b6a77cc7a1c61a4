"""Does a run that is killed again and again end as the one that was left alone?

Runs the quickstart once from start to end. Then starts it anew, kills it with SIGKILL at a random
moment, resumes it, kills it again, and so on: a chain of kills through a run, and through as many
runs as the kills take. One moment in four is drawn from the time that a process takes to load; the
others are drawn from the time after, in which it evaluates, rolls out, updates and saves, up to a
share of what the whole run took, so that runs get on between two kills on a busy machine too.

Every run that comes to its end must have the adapter, the metrics, the trajectories and the
evaluations of the first, bit by bit; only times and what the cache happened to know may differ.
Prints a line a kill and, as the last line on stdout, one JSON object. With 20 kills about 18
minutes on two busy cores, most of it spent on loading.

Usage:  python benchmarks/kill_and_resume.py [--kills 20] [--steps 12] [--seed 0] [--set KEY=VALUE]
                                             [--longest 0.35] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "kill_and_resume.json"
NOT_COMPARED = ("seconds/", "cache_hits/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12, help="Optimiser steps of a run.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments, not of the runs.")
    parser.add_argument("--longest", type=float, default=0.35, help="Share of the run's time.")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = [f"train.max_steps={arguments.steps}", "train.save_steps=2", "evaluate.limit=16"]
    settings += arguments.overrides
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as folder:
        runs = Runs(Path(folder), settings)
        whole = runs.finish("whole")
        print(f"the whole run: {whole.loading:.0f} s to load, {whole.working:.0f} s of work")
        moments = random.Random(arguments.seed)

        def draw() -> Moment:
            if moments.random() < 0.25:
                return Moment("loading", round(moments.uniform(0, whole.loading), 2))
            latest = arguments.longest * whole.working
            return Moment("working", round(moments.uniform(0, latest), 2))

        kills, finished = kill_chain(runs, whole.outcome, draw, arguments.kills)
    result = {
        "kills": len(kills),
        "runs": len(finished),
        "identical": sum(all(same.values()) for same in finished),
        "loading_seconds": round(whole.loading, 1),
        "working_seconds": round(whole.working, 1),
        "seconds": round(time.monotonic() - started, 1),
        "settings": ["quickstart", *settings],
        "moments_seed": arguments.seed,
        "compared": finished,
        "each": kills,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in list(result)[:6]}))
    sys.exit(result["identical"] != result["runs"])


@dataclass
class Moment:
    """Seconds from the start of a process (`loading`) or from its opening the run (`working`)."""

    phase: str
    seconds: float


@dataclass
class Finished:
    """What a run ended with, and how long its last process took to load and to work."""

    outcome: dict
    loading: float
    working: float


def kill_chain(
    runs: Runs, reference: dict, draw: Callable[[], Moment], count: int
) -> tuple[list[dict], list[dict]]:
    """Kill `count` times, over as many runs as it takes; then let the last one end."""
    kills, finished = [], []
    while True:
        name = f"run-{len(finished) + 1}"
        while len(kills) < count and runs.kill(name, moment := draw()):
            kills.append({"run": name, **asdict(moment), **runs.describe(name)})
            print(json.dumps(kills[-1]), flush=True)
        outcome = runs.finish(name).outcome
        finished.append({part: outcome[part] == reference[part] for part in reference})
        print(f"{name} is at its end: {json.dumps(finished[-1])}", flush=True)
        if len(kills) == count:
            return kills, finished


class Runs:
    """Runs of one recipe, side by side in a folder, with a cache of their own."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.folder = folder
        self.settings = settings
        # One thread: the order in which several add up numbers is not promised to be the same.
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "RSEARCH_CACHE_DIR": str(folder / "cache"),
        }

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a run, or go on with it as a person would."""
        run = self.folder / name
        if (run / "recipe.yaml").exists():
            options = ["--recipe", str(run / "recipe.yaml"), "--resume"]
        else:
            options = ["--recipe", "quickstart", "--output-dir", str(run)]
            options += [part for setting in self.settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "rsearch_cli", "train", "--json", *options]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def wait_opened(self, name: str, process: subprocess.Popen[bytes], before: int) -> None:
        """Wait until a process has loaded all it needs, which is when it writes the recipe."""
        while process.poll() is None and self.opened(name) == before:
            time.sleep(0.02)

    def opened(self, name: str) -> int:
        """When the run was last opened, in nanoseconds since 1970; 0 if it never was."""
        recipe = self.folder / name / "recipe.yaml"
        return recipe.stat().st_mtime_ns if recipe.exists() else 0

    def kill(self, name: str, moment: Moment) -> bool:
        """Let a run go on until a moment and kill it; False if it came to its end before."""
        before, process = self.opened(name), self.start(name)
        if moment.phase == "working":
            self.wait_opened(name, process, before)
        try:
            code = process.wait(moment.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
        self._must_be_well(name, code)
        return False

    def finish(self, name: str) -> Finished:
        """Let a run come to its end, if it is not there."""
        times = [time.monotonic()]
        if not (self.folder / name / "summary.json").exists():
            before, process = self.opened(name), self.start(name)
            self.wait_opened(name, process, before)
            times.append(time.monotonic())
            self._must_be_well(name, process.wait())
        times += [time.monotonic()] * 2
        outcome = read_outcome(self.folder / name)
        return Finished(outcome, times[1] - times[0], times[2] - times[1])

    def describe(self, name: str) -> dict:
        """Where a run stood when it was killed."""
        run = self.folder / name
        saved = [int(path.name[11:]) for path in run.glob("checkpoint-*")]
        metrics = run / "metrics.jsonl"
        return {
            "steps": len(metrics.read_bytes().splitlines()) if metrics.exists() else 0,
            "saved": max(saved, default=0),
            "while_writing": sorted(path.name for path in run.glob(".partial/*")),
            "trained": (run / "adapter").exists(),
        }

    def _must_be_well(self, name: str, code: int) -> None:
        if code:
            log = (self.folder / f"{name}.log").read_text(errors="replace")
            sys.exit(f"{name} ended with code {code}:\n{log[-3000:]}")


def read_outcome(run: Path) -> dict:
    """Everything a run ends with, but for times and for what the cache happened to know."""
    metrics = [
        {key: value for key, value in row.items() if not key.startswith(NOT_COMPARED)}
        for row in read_rows(run / "metrics.jsonl")
    ]
    trajectories = read_rows(run / "trajectories.jsonl")
    for row in trajectories:
        for round_ in row["rounds"]:
            for result in round_["results"]:
                del result["cached"]
    summary = json.loads((run / "summary.json").read_text())
    return {
        "adapter": (run / "adapter" / "adapter_model.safetensors").read_bytes(),
        "metrics": metrics,
        "trajectories": trajectories,
        "evaluations": [summary[part] for part in ("before", "after", "difference")],
    }


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
