from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound
from rsearch_cli.evaluation.result import score_trajectory
from rsearch_cli.reward.composite import score_trajectories
from rsearch_cli.training.step_metrics import describe_trajectory
from rsearch_cli.training.stored_traces import choose_traces, find_fault, read_candidates
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

NODE = PlanNode("A", "Ada born", "General")
PLAN = "Nodes:\nA: Ada born (General)\nEdges:"


def trajectory(
    answer: str | None = "Rome",
    plan: str = PLAN,
    thought: str = "<think> I look it up. </think>\n",
    error: str | None = None,
    text: str = "Where was Ada born?",
    opening: str = "",
) -> Trajectory:
    """A rollout as it would be, with one thing wrong at most."""
    said = f"<answer> {answer} </answer>" if answer else "I do not know."
    segments = (
        Segment(f"{thought}<search>\n{plan}\n</search>", (1, 2), "model"),
        Segment("\n<result>\nA: Ada was born in Rome.\n</result>\n", (3,), "system"),
        Segment(said, (4,), "model"),
        Segment("", (0,), "system"),
    )
    rounds = (SearchRound(SearchPlan((NODE,)), (), (NodeResult(NODE, error=error),)),)
    question = Question("q1", text, ("Rome", "Roma"))
    return Trajectory(question, (7,), opening, segments, rounds, answer, "answer")


def as_prediction(t: Trajectory, recipe) -> dict:
    return score_trajectory(t, recipe).as_json()


def as_rollout(t: Trajectory, recipe) -> dict:
    parts = score_trajectories([t], recipe, 0)[0]
    return describe_trajectory(3, t, parts)


@pytest.fixture(params=[as_prediction, as_rollout], ids=["predictions", "trajectories"])
def choose(request, quickstart, tmp_path):
    """Chooses from a file of both kinds in turn; gives traces and tally."""

    def choose(*trajectories: Trajectory, held_out=(), **sft):
        path = tmp_path / "rows.jsonl"
        rows = (json.dumps(request.param(t, quickstart)) for t in trajectories)
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        sft = quickstart.sft.model_copy(update={"traces": str(path)} | sft)
        return choose_traces(quickstart.model_copy(update={"sft": sft}), held_out)

    return choose


def test_a_right_answer_comes_out_as_it_was_written(choose):
    good = trajectory()
    traces, stats = choose(good)
    assert [(s.author, s.text) for s in traces[0].segments] == [
        (s.author, s.text) for s in good.segments[:3]
    ]
    assert traces[0].question == Question("q1", "Where was Ada born?", ("Rome", "Roma"))
    assert stats.as_row() == {"taken": 1, "rejected": {}, "failed": 0}


def test_what_a_template_opened_belongs_to_the_text(choose):
    traces, _ = choose(trajectory(opening="<think>\n", thought="I look it up. </think>\n"))
    assert traces[0].segments[0].text.startswith("<think>\nI look it up. </think>\n<search>")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"answer": None}, "without an answer"),
        ({"answer": "Oslo"}, "with a wrong answer"),
        ({"thought": ""}, "with a broken format"),
        ({"plan": "Nodes:\nA: Ada (Nowhere)\nEdges:"}, "with a plan that is not valid"),
        ({"error": "timed out"}, "with a failed search"),
        ({"text": "Where is she from?"}, "of evaluated questions"),
    ],
)
def test_whatever_is_wrong_is_left_out_and_counted(choose, wrong, reason):
    traces, stats = choose(
        trajectory(), trajectory(**wrong), held_out={"Where is she from?"}, per_question=9
    )
    assert len(traces) == 1
    assert stats.as_row() == {"taken": 1, "rejected": {reason: 1}, "failed": 0}
    assert stats.describe() == f"1 of 2 traces accepted; rejected: 1 {reason}"


def test_an_answer_that_is_nearly_right_counts_from_min_f1_on(choose):
    nearly = trajectory("old Rome")  # F1 2/3
    assert len(choose(nearly, min_f1=0.6)[0]) == 1
    with pytest.raises(DataEmpty, match="rejected: 1 with a wrong answer"):
        choose(nearly, min_f1=0.7)


def test_no_question_is_learnt_more_often_than_the_recipe_says(choose):
    many = [trajectory(thought=f"<think> way {i} </think>\n") for i in range(4)]
    traces, stats = choose(*many, many[0], per_question=2)
    assert [t.written[:14] for t in traces] == ["<think> way 0 ", "<think> way 1 "]
    assert stats.rejected == {"over sft.per_question": 2, "duplicates": 1}
    several = [trajectory(text=f"Question {i}?") for i in range(4)]
    traces, stats = choose(*several, max_traces=3)
    assert [t.question.text for t in traces] == ["Question 0?", "Question 1?", "Question 2?"]
    assert stats.rejected == {"over sft.max_traces": 1}


def test_more_searches_than_the_policy_may_make_are_not_learnt(choose):
    once = trajectory()
    twice = Trajectory(
        once.question, once.prompt_ids, "", (*once.segments[:2], *once.segments), once.rounds,
        once.answer, "answer",
    )  # fmt: skip
    _, stats = choose(once, twice)
    assert stats.rejected == {"with more searches than rollout.max_turns": 1}


def test_none_left_is_an_error_with_the_counts(choose):
    with pytest.raises(DataEmpty) as caught:
        choose(trajectory("Oslo"), trajectory("Bonn"), trajectory(None))
    assert str(caught.value).endswith(
        "rows.jsonl: no trace is left to train on (0 of 3 traces accepted; "
        "rejected: 2 with a wrong answer, 1 without an answer)"
    )


def test_an_answer_without_a_reference_proves_nothing(quickstart, tmp_path):
    row = as_prediction(trajectory(), quickstart) | {"references": [], "em": None, "f1": None}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    (candidate,) = read_candidates(tmp_path / "p.jsonl")
    assert find_fault(candidate, quickstart) == "of questions without a reference answer"


def test_rows_with_further_fields_are_read(quickstart, tmp_path):
    row = as_prediction(trajectory(), quickstart) | {"judge": 1.0}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    assert len(list(read_candidates(tmp_path / "p.jsonl"))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inserted": None}, "a field is of the wrong type"),
        ({"inserted": [[5, 2]]}, "the range 5 to 2 of 'inserted' is not in the transcript"),
        ({"inserted": [[0, 99999]]}, "the range 0 to 99999"),
        ({"references": "Rome"}, "the reference answers must be a list"),
        ({"transcript": 5}, "expected text, got int"),
    ],
)
def test_a_row_that_is_none_of_ours_is_named(quickstart, tmp_path, changes, message):
    row = as_prediction(trajectory(), quickstart)
    path = tmp_path / "p.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row | changes)}\n")
    with pytest.raises(DataMalformed) as caught:
        list(read_candidates(path))
    assert message in str(caught.value)
    assert 'p.jsonl, line 2 (id "q1"): no prediction, trajectory or trace' in str(caught.value)


def test_a_row_without_a_transcript_is_named(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "a", "question": "x?", "answer": "y"}\n')
    with pytest.raises(DataMalformed, match=r'line 1 \(id "a"\): .*question_id. is missing'):
        list(read_candidates(path))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(DataNotFound, match=r"none\.jsonl"):
        list(read_candidates(Path("none.jsonl")))
