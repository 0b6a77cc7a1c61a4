"""The figures of a method: means over what was measured, and counts of what was not."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluation.summary import summarise_method


def test_means_intervals_and_costs(record):
    rows = [record(f"q{i}", float(i < 3), seconds=float(i), usd=0.25) for i in range(4)]
    block = summarise_method(rows)
    assert (block["n"], block["em"], block["f1"]) == (4, 0.75, 0.75)
    low, high = block["intervals"]["em"]
    assert low < 0.75 < high
    assert block["searches_per_question"] == 1.0 and block["tokens_per_question"] == 9.0
    assert block["latency_seconds"] == {"p50": 1.5, "p95": 2.85}
    assert block["usd"] == 1.0


def test_what_failed_is_counted_and_is_no_zero(record):
    rows = [
        record("a", 1.0, judge=1.0, judged=True),
        record("b", 1.0, judge=None, judged=True, failed_searches=1, searches=2),
        record("c", 0.0, failure="no reply", completion_tokens=0, searches=0),
    ]
    block = summarise_method(rows)
    assert (block["n"], block["failed_answers"], block["unscored"]) == (3, 1, 1)
    assert (block["em"], block["judge"]) == (1.0, 1.0)
    assert block["scored"] == {
        "em": 2,
        "f1": 2,
        "judge": 1,
        "title_recall": 0,
        "plan_valid": 2,
        "format_valid": 2,
    }
    assert (block["searches"], block["failed_searches"]) == (3, 1)
    assert block["title_recall"] is None and "title_recall" not in block["intervals"]


def test_a_batch_has_no_latency_but_seconds_a_question(record):
    # Two batches of 4 and one of 2, which took 8, 4 and 3 seconds; every row has its batch's time.
    took = [8.0] * 4 + [4.0] * 4 + [3.0] * 2
    rows = [record(f"q{i}", seconds=seconds) for i, seconds in enumerate(took)]
    block = summarise_method(rows, batch_size=4)
    assert block["seconds_per_question"] == 1.5
    assert block["latency_seconds"] == {"p50": None, "p95": None}
    assert summarise_method(rows, batch_size=1)["latency_seconds"]["p95"] == 8.0
    assert summarise_method(rows)["seconds_per_question"] is None


def test_plan_and_format_are_only_told_of_the_agent(record):
    block = summarise_method([record("a", method="rag", title_recall=0.5)])
    assert block["plan_valid"] is None and block["format_valid"] is None
    assert block["title_recall"] == 0.5


def test_types_and_levels_have_their_own_means(record):
    rows = [
        record("a", 1.0, type="bridge", level="hard"),
        record("b", 0.0, type="bridge", level="easy"),
        record("c", 1.0, type="comparison", level="hard"),
    ]
    block = summarise_method(rows)
    bridge = block["by_type"]["bridge"]
    assert (bridge["n"], bridge["em"], bridge["interval_methods"]["em"]) == (2, 0.5, "Wilson")
    assert bridge["intervals"]["em"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert block["by_level"]["hard"]["em"] == 1.0


def test_all_answers_may_have_failed(record):
    block = summarise_method([record("a", failure="no reply")])
    assert block["em"] is None and block["latency_seconds"] == {"p50": None, "p95": None}


def test_nothing_cannot_be_summarised():
    with pytest.raises(DataEmpty, match="0 questions were evaluated"):
        summarise_method([])
