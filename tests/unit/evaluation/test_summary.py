"""Summaries: means over what was measured, counts of what was not."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluation.summary import summarise


def test_means_intervals_and_costs(result):
    rows = [result(f"q{i}", float(i < 3), seconds=float(i), usd=0.25) for i in range(4)]
    block = summarise(rows)
    assert (block["n"], block["em"], block["f1"]) == (4, 0.75, 0.75)
    low, high = block["intervals"]["em"]
    assert low < 0.75 < high
    assert block["searches_per_question"] == 1.0 and block["tokens_per_question"] == 9.0
    assert block["latency_seconds"] == {"p50": 1.5, "p95": 2.85}
    assert block["usd"] == 1.0


def test_what_failed_is_counted_and_is_no_zero(result):
    rows = [
        result("a", 1.0, judge=1.0, judged=True),
        result("b", 1.0, judge=None, judged=True, failed_searches=1, failed_reads=4, searches=2),
        result("c", 0.0, failure="no reply", completion_tokens=0, searches=0),
    ]
    block = summarise(rows)
    assert (block["n"], block["failed_answers"], block["unscored"]) == (3, 1, 1)
    assert (block["em"], block["judge"]) == (1.0, 1.0)
    assert block["scored"] == {
        "em": 2,
        "f1": 2,
        "judge": 1,
        "title_recall": 0,
        "all_titles": 0,
        "plan_valid": 2,
        "format_valid": 2,
    }
    assert (block["searches"], block["failed_searches"], block["failed_reads"]) == (3, 1, 4)
    assert block["title_recall"] is None and "title_recall" not in block["intervals"]


def test_a_batch_has_no_latency_but_seconds_a_question(result):
    # Two batches of 4 and one of 2, which took 8, 4 and 3 seconds; every row has its batch's time.
    took = [8.0] * 4 + [4.0] * 4 + [3.0] * 2
    rows = [result(f"q{i}", seconds=seconds) for i, seconds in enumerate(took)]
    block = summarise(rows, batch_size=4)
    assert block["seconds_per_question"] == 1.5
    assert block["latency_seconds"] == {"p50": None, "p95": None}
    assert summarise(rows, batch_size=1)["latency_seconds"]["p95"] == 8.0
    assert summarise(rows)["seconds_per_question"] is None


def test_plan_and_format_are_only_reported_for_the_agent(result):
    block = summarise([result("a", method="rag", title_recall=0.5)])
    assert block["plan_valid"] is None and block["format_valid"] is None
    assert (block["title_recall"], block["all_titles"]) == (0.5, 0.0)


def test_types_and_levels_have_their_own_means(result):
    rows = [
        result("a", 1.0, type="bridge", level="hard"),
        result("b", 0.0, type="bridge", level="easy"),
        result("c", 1.0, type="comparison", level="hard"),
    ]
    block = summarise(rows)
    bridge = block["by_type"]["bridge"]
    assert (bridge["n"], bridge["em"], bridge["interval_methods"]["em"]) == (2, 0.5, "Wilson")
    assert bridge["intervals"]["em"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert block["by_level"]["hard"]["em"] == 1.0


def test_all_answers_may_have_failed(result):
    block = summarise([result("a", failure="no reply")])
    assert block["em"] is None and block["latency_seconds"] == {"p50": None, "p95": None}


def test_nothing_cannot_be_summarised():
    with pytest.raises(DataEmpty, match="0 questions were evaluated"):
        summarise([])


def test_what_was_not_timed_has_no_time_and_no_price(result):
    block = summarise([result("a", seconds=None, usd=None)])
    assert block["latency_seconds"] == {"p50": None, "p95": None}
    assert block["seconds_per_question"] is block["usd"] is None


def test_questions_without_a_type_or_level_are_in_no_group(result):
    rows = [
        result("a", 1.0, type="bridge", level="hard"),
        result("b", 0.0, type="bridge"),
        result("c", 1.0, type="comparison", level="easy"),
        result("d", 0.0),
    ]
    summary = summarise(rows)
    groups = {
        key: {name: (block["em"], block["n"]) for name, block in summary[key].items()}
        for key in ("by_type", "by_level")
    }
    assert groups["by_type"] == {"bridge": (0.5, 2), "comparison": (1.0, 1)}
    assert groups["by_level"] == {"easy": (1.0, 1), "hard": (1.0, 1)}
