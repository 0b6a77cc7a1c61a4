"""Does choosing what to train on learn from fewer rollouts than plain GRPO?

Trains the quickstart with two completions a question, where about half of all groups have equal
rewards, from several seeds and in several ways: plain (`off`); with dynamic sampling
(`train.resample_ties`) and as many rollouts in an update (`on`), or half as many (`half`), so that
about as many are paid for at every step as in `off`; on questions with a measured pass rate from
0.1 to 0.9 (`rated`) or 0.25 to 0.75 (`middle`); or on all from easy to hard (`easy`). The greedy
policy is scored on held-out validation questions as the run goes on. Counted are paid rollouts,
discarded ones included, not seconds. The 4,096 rollouts that measure the pass rates, once for all
runs, are not counted.

Writes results/dynamic_sampling.json after every run; runs that are in it already are not repeated.
Prints a table and, as the last line on stdout, one JSON object. About 45 seconds of one core a run.

Usage:  python benchmarks/dynamic_sampling.py [--seeds 1 2 3 4 5] [--ways off half on] [--minutes M]
                                              [--report] [--out FILE]
        python benchmarks/dynamic_sampling.py --ways off rated middle easy
                                              --out benchmarks/results/pass_rates.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

RESULTS = Path(__file__).parent / "results" / "dynamic_sampling.json"
SETTINGS = (
    "train.num_generations=2",
    "policy.backend=transformers",
    "train.beta=0",
    "reward.curriculum_steps=0",  # it is counted in steps, and the ways differ in those
    "evaluate.slice=96",
    "evaluate.limit=1",
    "evaluate.sampled=false",
    "train.save_steps=1000",
)
# Steps are chosen so that every way pays for about 500 rollouts or a few more.
WAYS: dict[str, tuple[str, ...]] = {
    "off": ("train.batch_size=64", "train.max_steps=8", "evaluate.every_steps=4"),
    "half": (
        *("train.batch_size=32", "train.max_steps=9", "evaluate.every_steps=4"),
        "train.resample_ties=3",
    ),
    "on": (
        *("train.batch_size=64", "train.max_steps=5", "evaluate.every_steps=2"),
        "train.resample_ties=3",
    ),
}
RATED = (*WAYS["off"], "questions.max_samples=512")
WAYS["rated"] = (*RATED, "questions.pass_rate=[0.1,0.9]")
WAYS["middle"] = (*RATED, "questions.pass_rate=[0.25,0.75]")
# The run asks 8 x 32 questions: each of these once.
WAYS["easy"] = (*WAYS["off"], "questions.max_samples=256", "questions.order=easy_to_hard")
BY_RATE = ("rated", "middle", "easy")
BY_DEFAULT = ["off", "half", "on"]
RATES = Path(tempfile.gettempdir()) / "rsearch-pass-rates" / "quickstart.json"
"""Where the pass rates are kept; they are the same on every machine of a kind."""
DRAWS = 10_000

Draw = Callable[[Sequence[float]], Sequence[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=BY_DEFAULT)
    parser.add_argument("--minutes", type=float, help="Start no run after this time.")
    parser.add_argument("--report", action="store_true", help="Run nothing.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.monotonic()
    runs = json.loads(arguments.out.read_text())["runs"] if arguments.out.exists() else []
    done = {(run["way"], run["seed"]) for run in runs}
    wanted = [(way, seed) for seed in arguments.seeds for way in arguments.ways]
    for way, seed in wanted if not arguments.report else ():
        if arguments.minutes and time.monotonic() - started > 60 * arguments.minutes:
            break
        if (way, seed) not in done:
            runs.append(train_once(way, seed))
            print(json.dumps(runs[-1]), flush=True)
            store(arguments.out, runs)
    report = store(arguments.out, runs)
    for way, figures in report["ways"].items():
        print(way, json.dumps(figures))
    print(json.dumps({key: report[key] for key in ("paid", "accuracy", "compared")}))


def train_once(way: str, seed: int) -> dict[str, Any]:
    """Train through `rsearch_cli.train`, and take the figures of its steps and validations."""
    from rsearch_cli import load_recipe, train

    rated = [f"questions.profile={measure_pass_rates()}"] if way in BY_RATE else []
    recipe = load_recipe("quickstart", [*SETTINGS, *WAYS[way], *rated, f"seed={seed}"])
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="dynamic-sampling-") as folder:
        report = train(recipe, Path(folder) / "run")
    size = recipe.train.batch_size
    steps = [
        {
            "kept": size,
            "discarded": row.get("discarded/rollouts", 0),
            "tied": round(row["groups/zero_advantage"], 4),
            "reward": round(row["reward"], 4),
        }
        for row in report.rows
    ]
    paid = [0]
    for step in steps:
        paid.append(paid[-1] + step["kept"] + step["discarded"])
    return {
        "way": way,
        "seed": seed,
        "cpu_seconds": round(time.process_time() - began, 1),
        "steps": steps,
        "validations": [
            {"step": row["step"], "paid": paid[row["step"]], "em": row["em"], "f1": row["f1"]}
            for row in report.validations
        ],
    }


def measure_pass_rates() -> Path:
    """Sample 8 answers to each of 512 training questions, unless that is done."""
    from rsearch_cli.workflows.profile import profile_questions

    settings = ["questions.max_samples=512", "policy.backend=transformers"]
    profile_questions("builtin:nano", RATES, recipe="quickstart", overrides=settings)
    return RATES


def count_rates() -> dict[str, Any]:
    """Count the questions by pass rate, and those of each range."""
    from rsearch_cli.questions.profile import read_profile

    rates = [row.rate for row in read_profile(RATES).rates if row.rate is not None]
    return {
        "questions": len(rates),
        "mean": round(fmean(rates), 4),
        "counts": {f"{rate:g}": count for rate, count in sorted(Counter(rates).items())},
        "rated": sum(0.1 <= rate <= 0.9 for rate in rates),
        "middle": sum(0.25 <= rate <= 0.75 for rate in rates),
    }


def store(out: Path, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the runs with their summary, and return it."""
    report = {"settings": {"all": SETTINGS, **WAYS}, **summarise(runs), "runs": runs}
    if any(run["way"] in BY_RATE for run in runs):
        stored = json.loads(out.read_text()) if out.exists() else {}
        report["pass_rates"] = count_rates() if RATES.exists() else stored.get("pass_rates")
    out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare the ways at an equal number of paid rollouts, and by what they need."""
    if not runs:
        return {"paid": 0, "accuracy": None, "ways": {}, "compared": {}}
    paid = min(run["validations"][-1]["paid"] for run in runs)
    # The highest accuracy that every run reaches, so that no run has to be guessed further.
    accuracy = min(max(point["em"] for point in run["validations"]) for run in runs)
    ways = {way: [run for run in runs if run["way"] == way] for way in WAYS}
    figures = {
        way: {
            "runs": len(those),
            "accuracy": interval([accuracy_at(run, paid) for run in those]),
            "rollouts": interval([rollouts_to(run, accuracy) for run in those]),
            "wasted_of_paid": interval([wasted(run, paid=True) for run in those]),
            "tied_in_updates": interval([wasted(run, paid=False) for run in those]),
        }
        for way, those in ways.items()
        if those
    }
    compared = {
        f"{way}/off": {
            "ratio_of_rollouts": interval_of_ratio(
                [rollouts_to(run, accuracy) for run in ways[way]],
                [rollouts_to(run, accuracy) for run in ways["off"]],
            ),
            "difference_of_accuracy": interval_of_difference(
                [accuracy_at(run, paid) for run in ways[way]],
                [accuracy_at(run, paid) for run in ways["off"]],
            ),
        }
        for way in WAYS
        if way != "off" and ways[way] and ways["off"]
    }
    return {"paid": paid, "accuracy": round(accuracy, 4), "ways": figures, "compared": compared}


def accuracy_at(run: dict[str, Any], paid: float) -> float:
    """Return the held-out exact match after `paid` rollouts, linear between validations."""
    points = run["validations"]
    for left, right in itertools.pairwise(points):
        if paid <= right["paid"]:
            share = (paid - left["paid"]) / (right["paid"] - left["paid"])
            return left["em"] + share * (right["em"] - left["em"])
    return points[-1]["em"]


def rollouts_to(run: dict[str, Any], accuracy: float) -> float:
    """Return the paid rollouts until the held-out exact match reaches `accuracy`."""
    points = run["validations"]
    for left, right in itertools.pairwise(points):
        if right["em"] >= accuracy > left["em"]:
            share = (accuracy - left["em"]) / (right["em"] - left["em"])
            return left["paid"] + share * (right["paid"] - left["paid"])
    return float(points[-1]["paid"])


def wasted(run: dict[str, Any], *, paid: bool) -> float:
    """Return the share of rollouts in groups with equal rewards, of all paid ones or of updates."""
    tied = sum(step["tied"] * step["kept"] for step in run["steps"])
    kept = sum(step["kept"] for step in run["steps"])
    discarded = sum(step["discarded"] for step in run["steps"]) if paid else 0
    return (tied + discarded) / (kept + discarded)


def interval(values: Sequence[float]) -> list[float]:
    """Return mean and 95 % percentile bootstrap over runs, too narrow for a handful of them."""
    return bootstrap(lambda draw: fmean(draw(values)))


def interval_of_ratio(values: Sequence[float], of: Sequence[float]) -> list[float]:
    """Return the ratio of the means, as `interval` does; the two are drawn independently."""
    return bootstrap(lambda draw: fmean(draw(values)) / fmean(draw(of)))


def interval_of_difference(values: Sequence[float], of: Sequence[float]) -> list[float]:
    """Return the difference of the means, as `interval` does."""
    return bootstrap(lambda draw: fmean(draw(values)) - fmean(draw(of)))


def bootstrap(
    figure: Callable[[Callable[[Sequence[float]], Sequence[float]]], float],
) -> list[float]:
    rng = random.Random(0)
    drawn = sorted(figure(lambda values: rng.choices(values, k=len(values))) for _ in range(DRAWS))
    low, high = drawn[round(0.025 * DRAWS)], drawn[round(0.975 * DRAWS) - 1]
    return [round(figure(list), 4), round(low, 4), round(high, 4)]


if __name__ == "__main__":
    main()
