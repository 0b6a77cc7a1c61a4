"""Rows: what is measured, how they are stored, and when too much has failed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsearch_cli.errors import DataMalformed, FailureShareExceeded
from rsearch_cli.evaluation.result import (
    EvalResult,
    measure_record,
    refuse_failed,
    search_seconds,
    title_recall,
)
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import (
    NodeResult,
    Passage,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

NODES = (PlanNode("A", "capital of France", "General"), PlanNode("B", "Paris", "General"))


def trajectory(*titles: str, supporting: tuple[str, ...] = ("Paris", "France"), error=None):
    results = (
        NodeResult(NODES[0], passages=tuple(Passage(t, t, "text") for t in titles)),
        NodeResult(NODES[1], error=error),
    )
    return Trajectory(
        question=Question("q", "Capital?", ("Paris",), supporting_titles=supporting),
        prompt_ids=(1,),
        opening="",
        segments=(Segment("<answer> Paris </answer>", (1, 2), "model"),),
        rounds=(SearchRound(SearchPlan(NODES), (), results),),
        answer="Paris",
        stop="answer",
    )


@pytest.mark.parametrize(
    ("found", "recall"),
    [(("Paris", "Rome"), 0.5), (("france", " PARIS "), 1.0), (("Rome",), 0.0), ((), 0.0)],
)
def test_recall_is_the_share_of_supporting_titles(found, recall):
    assert title_recall(trajectory(*found)) == recall


def test_recall_is_unknown_without_titles_and_after_a_failed_search():
    assert title_recall(trajectory("Paris", supporting=())) is None
    assert title_recall(trajectory("Paris", error="no answer")) is None


def test_the_searches_of_a_question_take_as_long_as_its_longest_chain():
    nodes = tuple(PlanNode(label, "x", "General") for label in "ABCD")
    plan = SearchPlan(nodes, (("A", "C"), ("B", "C")))
    results = tuple(
        NodeResult(node, seconds=seconds)
        for node, seconds in zip(nodes, (1.0, 2.0, 0.5, 2.25), strict=True)
    )
    rounds = (SearchRound(plan, (), results), SearchRound(None, ("no nodes",)))
    once = replace(trajectory(), rounds=rounds)
    assert search_seconds(once) == 2.5
    assert search_seconds(replace(once, rounds=rounds * 2)) == 5.0
    assert search_seconds(replace(once, rounds=())) == 0.0


def test_a_method_without_search_has_no_recall():
    measured = measure_record("direct", trajectory("Paris"), ProtocolConfig(), 1.0, None)
    assert measured.title_recall is None


def test_a_row_is_read_as_it_was_stored():
    measured = measure_record(
        "rag", trajectory("Paris", error="late"), ProtocolConfig(), 0.5, "none"
    )
    assert (measured.search_failure, measured.failure) == ("late", "none")
    assert EvalResult.from_json(json.loads(json.dumps(measured.as_json()))) == measured


def test_a_row_of_another_make_is_refused(record):
    row = record("a").as_json()
    del row["judge"]
    with pytest.raises(DataMalformed, match=r"missing \['judge'\]; evaluate again"):
        EvalResult.from_json(row)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"failure": "no reply"}, "2 of 4 answers of the evaluation failed, .* no reply; mend"),
        (
            {"failed_searches": 1, "search_failure": "late"},
            "2 of 4 searches of the evaluation failed, a share of 0.5 where .* is 0.2; .* late",
        ),
        ({"judged": True}, "2 of 2 verdicts of the evaluation failed, .* one: busy; mend"),
    ],
)
def test_too_many_failures_stop_an_evaluation(record, changes, message):
    rows = [record("a"), record("b"), record("c", **changes), record("d", **changes)]
    with pytest.raises(FailureShareExceeded, match=message):
        refuse_failed(rows, 0.2, "busy")
    refuse_failed(rows, 1.0, "busy")


def test_no_failure_is_never_too_many(record):
    refuse_failed([record("a", searches=0)], 0.0, None)
