"""Does a small model learn to plan searches over real text, from the titles of the evidence alone?

Takes the recipe `real-text` through its two stages, a cold start on traces from gold titles and
GRPO on the `retrieval` reward, over the 6,119 Wikipedia paragraphs of `bridge_dev`
(2WikiMultiHopQA), whose questions come without answers. No supporting title of a held-out question
belongs to a training question. Measured on all held-out questions, decoded greedily, before and
after each stage: the share whose supporting titles are all found, and the share with valid plans,
with 95 % Wilson intervals, the paired differences by Bonett and Price, and exact McNemar tests; the
mean title recall by the bootstrap.

`--model` is a folder of SmolLM2-135M-Instruct or its name on the Hub. A stage that has finished in
`--out` is read and not repeated; one that was stopped is resumed. About 40 minutes and 18 GB of
memory on two cores. The last line on stdout is one JSON object, which also goes to
`results/real_text.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from rsearch_cli.evaluation.intervals import (
    bonett_price_interval,
    mean_interval,
    paired_difference,
    wilson_interval,
)
from rsearch_cli.evaluation.significance import mcnemar_exact

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
RESULTS = HERE / "results" / "real_text.json"
RECIPE = "real-text"

Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of bridge_dev_*.jsonl.")
    parser.add_argument("--model", required=True, help="Model folder or Hub id.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the runs.")
    parser.add_argument("--set", action="append", default=[], help="Settings of both stages.")
    given = parser.parse_args()
    corpus, asked = (given.data / f"bridge_dev_{name}.jsonl" for name in ("corpus", "questions"))
    if not (corpus.is_file() and asked.is_file()):
        print("skipped: bridge_dev_* is not here", file=sys.stderr)
        print(json.dumps({"skipped": "bridge_dev_* is not here"}))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    questions = given.out / "questions.jsonl"
    write_questions(asked, questions)
    settings = [f"search.sources.General.corpus={corpus}", *given.set]
    common = ["--model", given.model, "--data-path", str(questions)]
    plans, grpo, after = (given.out / name for name in ("plans", "grpo", "after-grpo"))
    train(plans, [*common, "--stage", "sft"], settings)
    # Its policy before training is that of the cold start, which has been evaluated.
    start = ["evaluate.limit=1", f"policy.adapter={plans}"]
    train(grpo, common, [*settings, *start])
    evaluate(grpo, after)
    report = describe(plans, grpo, after)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_report(report)
    print(json.dumps(report))


def write_questions(asked: Path, path: Path) -> None:
    """Write the questions with the names of fields that `custom` reads."""
    kinds = {2: "bridge", 4: "comparison"}
    with path.open("w", encoding="utf-8") as file:
        for row in read_lines(asked):
            titles = row["gold_titles"]
            fields = {"question": row["question"], "supporting_titles": titles}
            file.write(json.dumps(fields | {"type": kinds[len(titles)]}, ensure_ascii=False) + "\n")


def train(folder: Path, options: list[str], settings: list[str]) -> None:
    """Run a stage to its end, unless it is finished."""
    if (folder / "summary.json").is_file():
        return
    if (folder / "recipe.yaml").is_file():
        call("train", "--recipe", str(folder / "recipe.yaml"), "--resume")
        return
    chosen = [part for setting in settings for part in ("--set", setting)]
    call("train", "--recipe", RECIPE, *options, *chosen, "--output-dir", str(folder))


def evaluate(run: Path, folder: Path) -> None:
    """Evaluate a run on all held-out questions; an evaluation that was stopped is continued."""
    everything = ["--set", "evaluate.limit=null"]
    call("eval", "--model", str(run), *everything, "--output-dir", str(folder))


def call(*arguments: str) -> None:
    command = [sys.executable, "-m", "rsearch_cli", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def describe(plans: Path, grpo: Path, after: Path) -> dict[str, Any]:
    """Return the figures of all three policies and what their training took."""
    phases = {
        "before": read_lines(plans / "predictions" / "before-greedy.jsonl"),
        "after the cold start": read_lines(plans / "predictions" / "after-greedy.jsonl"),
        "after GRPO": read_lines(after / "predictions.jsonl"),
    }
    cold, warm = (json.loads((run / "summary.json").read_text()) for run in (plans, grpo))
    steps = read_lines(grpo / "metrics.jsonl")
    names = list(phases)
    return {
        "held_out": len(phases["before"]),
        "phases": {name: describe_phase(rows) for name, rows in phases.items()},
        "differences": {
            f"{new} against {old}": compare(phases[old], phases[new])
            for old, new in pairwise(names)
        },
        "cold_start": describe_run(cold, read_lines(plans / "metrics.jsonl"))
        | {"traces": cold["traces"]},
        "grpo": describe_run(warm, steps)
        | {
            "rollouts": len(read_lines(grpo / "trajectories.jsonl")),
            "reward": [round(row["reward"], 3) for row in steps],
            "retrieval": [round(row["reward/retrieval"], 3) for row in steps],
            "plan": [round(row["reward/plan"], 3) for row in steps],
        },
    }


def describe_phase(rows: Rows) -> dict[str, Any]:
    kinds = sorted({row["type"] for row in rows})
    return {
        "all_titles": share([found_all(row) for row in rows]),
        "plan_valid": share([row["plan_valid"] == 1.0 for row in rows]),
        "title_recall": describe_mean([row["title_recall"] for row in rows]),
        "tokens": round(fmean(row["completion_tokens"] for row in rows), 1),
        "all_titles_by_type": {
            kind: share([found_all(row) for row in rows if row["type"] == kind]) for kind in kinds
        },
    }


def describe_run(summary: dict[str, Any], steps: Rows) -> dict[str, Any]:
    """Return steps and minutes; of a run that was resumed, the time of its steps counts."""
    training = sum(row["seconds/step"] for row in steps)
    return {"steps": len(steps), "minutes": round(training / 60, 1), "seed": summary["seed"]}


def share(hits: list[bool]) -> dict[str, Any]:
    right, n = sum(hits), len(hits)
    interval = wilson_interval(right, n)
    bounds = [round(interval.low, 3), round(interval.high, 3)]
    return {"right": right, "n": n, "share": round(right / n, 3), "interval": bounds}


def describe_mean(values: list[float]) -> dict[str, Any]:
    interval = mean_interval(values)
    bounds = [round(interval.low, 3), round(interval.high, 3)]
    return {"mean": round(fmean(values), 3), "interval": bounds, "method": interval.method}


def compare(before: Rows, after: Rows) -> dict[str, Any]:
    """Compare two policies question by question."""
    old = {row["text"]: row for row in before}
    pairs = [(old[row["text"]], row) for row in after]
    differences = {}
    for name, hit in (("all_titles", found_all), ("plan_valid", lambda r: r["plan_valid"] == 1.0)):
        gained = sum(hit(new) > hit(known) for known, new in pairs)
        lost = sum(hit(new) < hit(known) for known, new in pairs)
        interval = bonett_price_interval(gained, lost, len(pairs))
        differences[name] = {
            "gained": gained,
            "lost": lost,
            "difference": round((gained - lost) / len(pairs), 3),
            "interval": [round(interval.low, 3), round(interval.high, 3)],
            "p": float(f"{mcnemar_exact(gained, lost):.2g}"),
        }
    recalls = [[row["title_recall"] for row in side] for side in zip(*pairs, strict=True)]
    difference, interval = paired_difference(*recalls)
    differences["title_recall"] = {
        "difference": round(difference, 3),
        "interval": [round(interval.low, 3), round(interval.high, 3)],
        "method": interval.method,
    }
    return differences


def found_all(row: dict[str, Any]) -> bool:
    return row["title_recall"] == 1.0


def read_lines(path: Path) -> Rows:
    with path.open(encoding="utf-8") as lines:
        return list(map(json.loads, lines))


def print_report(report: dict[str, Any]) -> None:
    for name, phase in report["phases"].items():
        for metric in ("all_titles", "plan_valid"):
            row = phase[metric]
            low, high = row["interval"]
            print(
                f"{name:<22}{metric:<12}{row['right']:>3} of {row['n']}  {row['share']:.0%}  "
                f"[{low:.0%}, {high:.0%}]"
            )
    for stage in ("cold_start", "grpo"):
        print(f"{stage:<22}{report[stage]['steps']} steps, {report[stage]['minutes']} minutes")


if __name__ == "__main__":
    main()
