"""Predictions, their summary and the comparison of two evaluations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed
from rsearch_cli.evaluation.metrics import Prediction, compare, measure, pair_up, summarise
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)


def prediction(id: str, em: float = 1.0, **changes: object) -> Prediction:
    whole = Prediction(
        id=id,
        text=f"Question {id}?",
        references=("Paris",),
        answer="Paris" if em else "Rome",
        em=em,
        f1=em,
        plan_valid=1.0,
        format_valid=1.0,
        searches=1,
        completion_tokens=9,
        transcript="<answer> Paris </answer>",
    )
    return replace(whole, **changes)


def predictions(*scores: float) -> list[Prediction]:
    return [prediction(f"q{i}", score) for i, score in enumerate(scores)]


def trajectory(answer: str | None) -> Trajectory:
    nodes = (PlanNode("A", "capital of France", "General"), PlanNode("B", "Paris", "News"))
    plan = "so</think>\n<search>\nNodes:\nA: capital of France (General)\nB: Paris (News)\nEdges:\n"
    return Trajectory(
        question=Question("q7", "Capital?", ("Paris",), type="bridge", level="hard"),
        prompt_ids=(1, 2),
        opening="<think>",
        segments=(
            Segment(plan + "A -> B\n</search>", (3, 4, 5), "model"),
            Segment("\n<result>\nParis it is.\n</result>\n", (6, 7), "system"),
            Segment("" if answer is None else f"<answer> {answer} </answer>", (8, 9), "model"),
        ),
        rounds=(
            SearchRound(
                SearchPlan(nodes, (("A", "B"),)), results=tuple(NodeResult(n) for n in nodes)
            ),
        ),
        answer=answer,
        stop="eos" if answer is None else "answer",
    )


def test_measure_scores_and_counts() -> None:
    measured = measure(trajectory("Paris, France"), ProtocolConfig())
    assert (measured.id, measured.type, measured.level) == ("q7", "bridge", "hard")
    assert (measured.em, measured.f1) == (0.0, pytest.approx(2 / 3))
    assert (measured.plan_valid, measured.format_valid) == (1.0, 1.0)
    assert (measured.searches, measured.completion_tokens) == (2, 5)


def test_measure_scores_by_the_normalisation_of_the_recipe() -> None:
    said = trajectory("北京。")
    asked = replace(said, question=replace(said.question, answers=("北京",)))
    assert measure(asked, ProtocolConfig()).em == 0.0
    measured = measure(asked, ProtocolConfig(), "cjk")
    assert (measured.em, measured.f1) == (1.0, 1.0)


def test_measure_marks_what_the_system_inserted() -> None:
    rollout = trajectory("Paris")
    measured = measure(rollout, ProtocolConfig())
    (span,) = measured.inserted
    assert measured.transcript[slice(*span)] == rollout.segments[1].text
    assert measured.transcript.startswith("<think>so</think>")


def test_no_answer_is_wrong_and_breaks_the_format() -> None:
    measured = measure(trajectory(None), ProtocolConfig())
    assert (measured.answer, measured.em, measured.f1) == (None, 0.0, 0.0)
    assert measured.format_valid == 0.0


@pytest.mark.parametrize("answer", ["Paris [bold]", None])
def test_predictions_survive_json(answer: str | None) -> None:
    measured = measure(trajectory(answer), ProtocolConfig())
    assert Prediction.from_json(json.loads(json.dumps(measured.as_json()))) == measured


def test_a_foreign_row_is_refused_by_field() -> None:
    row = prediction("q").as_json()
    row["exact"] = row.pop("em")
    with pytest.raises(DataMalformed, match=r"missing \['em'\], unknown \['exact'\]"):
        Prediction.from_json(row)


def test_summary_holds_means_and_intervals() -> None:
    summary = summarise(predictions(1, 1, 0, 1), predictions(0, 1, 0, 0))
    assert (summary["em"], summary["em_sampled"], summary["n"]) == (0.75, 0.25, 4)
    assert (summary["f1"], summary["f1_sampled"]) == (0.75, 0.25)
    assert (summary["plan_valid"], summary["format_valid"]) == (1.0, 1.0)
    assert set(summary["intervals"]) == {
        *("em", "em_sampled", "f1", "f1_sampled", "plan_valid", "format_valid")
    }
    low, high = summary["intervals"]["em"]
    assert low < 0.75 < high
    assert summary["intervals"]["plan_valid"] == [pytest.approx(0.5101, abs=1e-4), 1.0]
    assert set(summary["interval_methods"].values()) == {"Wilson"}
    assert json.loads(json.dumps(summary)) == summary


def test_plan_and_format_are_those_of_the_greedy_answers() -> None:
    greedy = [prediction("q0", plan_valid=0.0), prediction("q1", format_valid=0.0)]
    summary = summarise(greedy, predictions(1, 1))
    assert (summary["plan_valid"], summary["format_valid"]) == (0.5, 0.5)


def test_a_summary_without_samples_says_null() -> None:
    summary = summarise(predictions(1, 0), None)
    assert summary["em_sampled"] is summary["f1_sampled"] is None
    assert "em_sampled" not in summary["intervals"]


def test_summary_by_type_and_level_leaves_the_unnamed_out() -> None:
    greedy = [
        prediction("a", 1.0, type="bridge", level="hard"),
        prediction("b", 0.0, type="bridge"),
        prediction("c", 1.0, type="comparison", level="easy"),
        prediction("d", 0.0),
    ]
    summary = summarise(greedy, None)
    assert summary["by_type"] == {"bridge": {"em": 0.5, "n": 2}, "comparison": {"em": 1.0, "n": 1}}
    assert summary["by_level"] == {"easy": {"em": 1.0, "n": 1}, "hard": {"em": 1.0, "n": 1}}


def test_nothing_cannot_be_summarised() -> None:
    with pytest.raises(DataEmpty, match="0 questions were evaluated"):
        summarise([], None)


def test_samples_of_other_questions_are_refused() -> None:
    with pytest.raises(DataError, match="1 ids are in only one of them, such as 'q2'"):
        summarise(predictions(1, 0), predictions(1, 0, 1))


def test_comparison_pairs_by_id_and_not_by_place() -> None:
    before, after = predictions(0, 0, 0, 1), predictions(1, 1, 1, 0)
    straight = compare(before, before, after, after)
    turned = compare(before, before, after[::-1], after[::-1])
    assert straight == turned
    assert straight["em"] == straight["em_sampled"] == 0.5
    assert straight["n"] == 4
    low, high = straight["intervals"]["em"]
    assert low < 0.5 < high
    low, high = straight["intervals"]["plan_valid"]
    assert -low == high == pytest.approx(0.462, abs=1e-3)
    assert straight["interval_methods"]["plan_valid"] == "Bonett-Price"


def test_comparison_reads_greedy_and_sampled_apart() -> None:
    zeros, ones, half = predictions(0, 0), predictions(1, 1), predictions(0, 1)
    difference = compare(zeros, half, ones, half)
    assert (difference["em"], difference["em_sampled"]) == (1.0, 0.0)


@pytest.mark.parametrize("samples", [(None, None), (predictions(1, 0), None)])
def test_comparison_without_samples_on_both_sides_says_null(
    samples: tuple[list[Prediction] | None, list[Prediction] | None],
) -> None:
    difference = compare(predictions(1, 0), samples[0], predictions(1, 1), samples[1])
    assert difference["em"] == 0.5
    assert difference["em_sampled"] is difference["f1_sampled"] is None
    assert "em_sampled" not in difference["intervals"]


def test_other_questions_cannot_be_compared() -> None:
    with pytest.raises(DataError, match=r"2 ids are in only one of them, such as 'q1'; evaluate"):
        pair_up([prediction("q0"), prediction("q1")], [prediction("q0"), prediction("q9")])


def test_a_question_that_occurs_twice_is_refused() -> None:
    twice = [prediction("q0"), prediction("q0", 0.0)]
    with pytest.raises(DataError, match="a question twice: 1 ids for 2 and 1 predictions"):
        pair_up(twice, [prediction("q0")])
