"""Alarms: silent on a healthy run, loud on a collapsed one; both were recorded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.training.alarms import CollapseWatch, find_alarms, first_alarms

WINDOW = 3
WELL: dict[str, Any] = {
    "reward": 0.5,
    "format_valid": 0.9,
    "entropy": 0.4,
    "completion_length": 300.0,
    "truncated": 0.1,
    "groups/zero_advantage": 0.3,
    "repeated/tags": 0.0,
    "repeated/ngrams": 0.1,
}


def recorded(name: str) -> list[dict[str, Any]]:
    """Rows of a real run of the quickstart: 40 healthy steps, or 12 at a rate of 0.05."""
    lines = Path(__file__).with_name(f"{name}_rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def run(start: dict[str, Any], end: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of four steps, then of four others, each like `WELL` but for what is given."""
    return [{**WELL, **(start if step < 4 else end)} for step in range(8)]


def names(rows: list[dict[str, Any]], limits: AlarmsConfig | None = None) -> list[str]:
    return [alarm.name for alarm in find_alarms(rows, limits or AlarmsConfig(), {}, WINDOW)]


def test_a_healthy_run_raises_no_alarm() -> None:
    watch, rows = CollapseWatch(AlarmsConfig(), {}, rollouts=64), recorded("healthy")
    assert [alarm for row in rows for alarm in watch.check(row)] == []
    assert len(rows) == 40 and all(row["alarms"] == [] for row in rows)


def test_a_collapsed_run_raises_alarms_within_two_steps_of_the_collapse() -> None:
    watch, rows = CollapseWatch(AlarmsConfig(), {}, rollouts=64), recorded("collapsed")
    new = [(row["step"], alarm.name, alarm.line) for row in rows for alarm in watch.check(row)]
    assert rows[2]["reward"] == 0.0, "it has collapsed by its third step"
    step, name, line = new[0]
    assert (step, name) == (4, "format_low")
    assert line == "7% of completions in valid format, below 0.25 times the best 39%"
    assert {"truncated", "zero_advantage"} <= {name for _, name, _ in new}
    assert {"truncated", "zero_advantage", "format_low"} <= set(rows[-1]["alarms"])


@pytest.mark.parametrize(
    ("start", "end", "name", "line"),
    [
        (
            {},
            {"entropy": 0.03},
            "entropy_low",
            "token entropy 0.03, below 0.1 times the 0.4 of the first steps",
        ),
        (
            {},
            {"entropy": 2.0},
            "entropy_high",
            "token entropy 2, above 3 times the 0.4 of the first steps",
        ),
        (
            {},
            {"completion_length": 20.0},
            "length_low",
            "tokens per completion 20, below 0.2 times the 300 of the first steps",
        ),
        ({}, {"truncated": 0.95}, "truncated", "95% of completions ran out of tokens, above 90%"),
        (
            {},
            {"format_valid": 0.1},
            "format_low",
            "10% of completions in valid format, below 0.25 times the best 90%",
        ),
        (
            {},
            {"groups/zero_advantage": 1.0},
            "zero_advantage",
            "100% of groups have equal rewards, above 95%",
        ),
        ({}, {"repeated/tags": 0.5}, "repeated_tags", "50% of tags are repeated, above 25%"),
        (
            {},
            {"repeated/ngrams": 0.75},
            "repeated_ngrams",
            "75% of 4-grams in <think> are repeated, above 50%",
        ),
    ],
)
def test_each_sign_has_an_alarm_that_can_be_switched_off(
    start: dict[str, Any], end: dict[str, Any], name: str, line: str
) -> None:
    rows = run(start, end)
    assert [(a.name, a.line) for a in find_alarms(rows, AlarmsConfig(), {}, WINDOW)] == [
        (name, line)
    ]
    assert names(rows, AlarmsConfig(**{name: None})) == []


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ({"format_valid": 0.15}, {"format_valid": 0.0}),
        ({"entropy": 0.02}, {"entropy": 0.3}),
        ({}, {"reward": 0.95, "groups/zero_advantage": 1.0, "entropy": 0.001}),
        ({}, {"entropy": None, "truncated": None, "format_valid": None}),
        ({}, {"entropy": math.nan, "completion_length": math.nan}),
        ({}, {"reward": None}),
    ],
    ids=["too rare", "small anyway", "solved", "not measured", "not a number", "unscored"],
)
def test_what_looks_like_a_sign_but_is_none(start: dict[str, Any], end: dict[str, Any]) -> None:
    assert names(run(start, end)) == []


@pytest.mark.parametrize(
    ("end", "solved"),
    [
        ({"reward": 1.0, "reward/retrieval": 0.0}, False),
        ({"reward": 1.75, "reward/retrieval": 0.75}, False),
        ({"reward": 1.85, "reward/retrieval": 0.85}, True),
        ({"reward": 0.95, "reward/retrieval": None}, True),
    ],
    ids=["plans alone", "three of four titles", "nearly all", "no supporting titles"],
)
def test_solved_is_nearly_the_highest_reward_of_the_recipe(
    end: dict[str, Any], solved: bool
) -> None:
    recipe = load_recipe("real-text").recipe
    rows = run({}, {**end, "groups/zero_advantage": 1.0, "entropy": 0.001})
    found = find_alarms(rows, recipe.alarms, recipe.reward.extra, WINDOW)
    assert {alarm.name for alarm in found} == (
        set() if solved else {"entropy_low", "zero_advantage"}
    )


def test_penalties_leave_the_highest_reward_as_it_is() -> None:
    rows = run({}, {"reward": 0.95, "reward/no_answer": -0.05, "groups/zero_advantage": 1.0})
    assert find_alarms(rows, AlarmsConfig(), {"no_answer": 0.5}, WINDOW) == []


def test_a_run_that_learnt_the_format_can_still_lose_it() -> None:
    learnt = run({"format_valid": 0.0}, {"format_valid": 0.9})
    assert names(learnt) == []
    assert names([*learnt, *run({"format_valid": 0.05}, {})[:4]]) == ["format_low"]


def test_one_bad_step_is_no_collapse() -> None:
    bad = {"truncated": 1.0, "format_valid": 0.0, "groups/zero_advantage": 1.0}
    watch = CollapseWatch(AlarmsConfig(), {}, rollouts=1000)
    for end in ({}, {}, {}, {}, bad, {}):
        assert watch.check({**WELL, **end}) == []


def test_small_steps_are_averaged_over_as_many_completions() -> None:
    watch = CollapseWatch(AlarmsConfig(window=64), {}, rollouts=4)
    steps = [watch.check({**WELL, "truncated": 1.0}) for _ in range(16)]
    assert [bool(new) for new in steps] == [False] * 15 + [True]


def test_an_alarm_that_stands_is_told_of_once_and_again_when_it_comes_back() -> None:
    watch = CollapseWatch(AlarmsConfig(), {}, rollouts=64)
    rows = [{**WELL, "truncated": value} for value in (0.1, 0.1, 0.1, 1, 1, 1, 1, 0.1, 1, 1, 1)]
    new = [[alarm.name for alarm in watch.check(row)] for row in rows]
    assert [i for i, found in enumerate(new) if found] == [5, 10]
    assert [row["alarms"] for row in rows[4:9]] == [[], ["truncated"], ["truncated"], [], []]
    stamped = [{**row, "step": step} for step, row in enumerate(rows, start=1)]
    assert first_alarms(stamped) == {"truncated": 6}


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped() -> None:
    whole, rows = CollapseWatch(AlarmsConfig(), {}, rollouts=64), recorded("collapsed")
    expected = [whole.check(row) for row in rows]
    resumed = CollapseWatch(AlarmsConfig(), {}, rollouts=64, rows=rows[:5])
    again = [{k: v for k, v in row.items() if k != "alarms"} for row in rows[5:]]
    assert [resumed.check(row) for row in again] == expected[5:]
    assert again == rows[5:]
