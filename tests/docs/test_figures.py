"""Figures in pages and pictures are those of benchmarks/results, and of the memory plan."""

from __future__ import annotations

import html
import json
import re

import pytest
from pages import ROOT, read

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.workflows.estimate import plan_for, presumed_backend

RESULTS = json.loads(read(ROOT / "benchmarks/results/quickstart_seeds.json"))["runs"]
ROWS = [
    (run["name"], metric, label)
    for run in RESULTS
    for metric, label in (("em", "greedy"), ("em_sampled", "sampled"))
]


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


@pytest.mark.parametrize(("name", "metric", "label"), ROWS)
def test_the_table_of_getting_started_is_the_measured_one(
    name: str, metric: str, label: str
) -> None:
    (run,) = (run for run in RESULTS if run["name"] == name)
    low, high = run["intervals"][metric]
    kind, seed = name.rsplit("-", 1)
    title = "**control**" if kind == "control" else "exact match"
    row = (
        f"| {title}, {label}, seed {seed} | {run['before'][metric]:.3f} "
        f"| {run['after'][metric]:.3f} | {signed(run['difference'][metric])} "
        f"[{signed(low)}, {signed(high)}] |"
    )
    assert row in read(ROOT / "docs/getting-started.md")


def test_the_picture_shows_the_figures_of_seed_42() -> None:
    picture = html.unescape(read(ROOT / "docs/pictures/quickstart.svg"))
    (run,) = (run for run in RESULTS if run["name"] == "seed-42")
    for metric in ("em", "em_sampled", "f1"):
        for block in ("before", "after"):
            assert f"{run[block][metric]:.3f}" in picture


def test_the_picture_of_a_session_has_its_parts() -> None:
    picture = html.unescape(read(ROOT / "docs/pictures/session.svg"))
    for part in ("thinking", "plan", "results", "answer", "└─", "searches"):
        assert part in picture


def planned_gb(name: str) -> str:
    recipe = load_recipe(name).recipe
    return f"{plan_for(recipe, presumed_backend(recipe), None).plan.total_gb:.1f} GB"


def test_the_memory_of_recipes_by_card_is_the_predicted_one() -> None:
    page = read(ROOT / "docs/recipes.md").partition("## Recipes by card")[2]
    rows = re.findall(r"^\| (`[^|]*) \| .* \| ([\d.]+ GB)(?: each)? \|$", page, flags=re.MULTILINE)
    names = {name: written for cell, written in rows for name in re.findall(r"`(.*?)`", cell)}
    assert len(names) >= 8
    assert names == {name: planned_gb(name) for name in names}


def test_getting_started_has_the_memory_of_the_flagship() -> None:
    assert f"USD, {planned_gb('hotpot-hard')}\n" in read(ROOT / "docs/getting-started.md")


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ("bridge, one query", "2WikiMultiHopQA, 160 questions, one query"),
        ("bridge, plans", "the same, plans"),
        ("HotpotQA, one query", "HotpotQA, 60 questions, one query"),
        ("HotpotQA, plans", "HotpotQA, 20 plans"),
    ],
)
def test_the_table_of_sources_is_the_measured_one(asked: str, label: str) -> None:
    results = json.loads(read(ROOT / "benchmarks/results/retrieval.json"))
    cells = [label]
    for kind in ("bm25", "dense", "hybrid"):
        found = results[f"{asked}, {kind}"]
        share, low, high = (round(100 * x) for x in (found["share"], *found["interval"]))
        cells.append(f"{share} % [{low}, {high}]")
    assert f"| {' | '.join(cells)} |" in read(ROOT / "docs/measurements.md")
