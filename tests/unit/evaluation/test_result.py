"""One record per evaluated question: scoring, storage, and what old files contain."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsearch_cli.errors import DataMalformed
from rsearch_cli.evaluation.result import (
    EvalResult,
    score_trajectory,
    search_seconds,
    title_recall,
)
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
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


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("quickstart").recipe


def searched(*titles: str, supporting: tuple[str, ...] = ("Paris", "France"), error=None):
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
    assert title_recall(searched(*found)) == recall


def test_recall_is_unknown_without_titles_and_after_a_failed_search():
    assert title_recall(searched("Paris", supporting=())) is None
    assert title_recall(searched("Paris", error="no answer")) is None


def test_the_searches_of_a_question_take_as_long_as_its_longest_chain():
    nodes = tuple(PlanNode(label, "x", "General") for label in "ABCD")
    plan = SearchPlan(nodes, (("A", "C"), ("B", "C")))
    results = tuple(
        NodeResult(node, seconds=seconds)
        for node, seconds in zip(nodes, (1.0, 2.0, 0.5, 2.25), strict=True)
    )
    rounds = (SearchRound(plan, (), results), SearchRound(None, ("no nodes",)))
    once = replace(searched(), rounds=rounds)
    assert search_seconds(once) == 2.5
    assert search_seconds(replace(once, rounds=rounds * 2)) == 5.0
    assert search_seconds(replace(once, rounds=())) == 0.0


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


def test_a_trajectory_is_scored_and_counted(recipe) -> None:
    scored = score_trajectory(trajectory("Paris, France"), recipe)
    assert (scored.id, scored.type, scored.level) == ("q7", "bridge", "hard")
    assert (scored.em, scored.f1) == (0.0, pytest.approx(2 / 3))
    assert (scored.plan_valid, scored.format_valid) == (1.0, 1.0)
    assert (scored.searches, scored.completion_tokens) == (2, 5)


def test_scores_follow_the_normalisation_of_the_recipe(recipe) -> None:
    said = trajectory("北京。")
    asked = replace(said, question=replace(said.question, answers=("北京",)))
    assert score_trajectory(asked, recipe).em == 0.0
    cjk = load_recipe("quickstart", ["reward.normalisation=cjk"]).recipe
    scored = score_trajectory(asked, cjk)
    assert (scored.em, scored.f1) == (1.0, 1.0)


def test_inserted_text_is_marked(recipe) -> None:
    rollout = trajectory("Paris")
    scored = score_trajectory(rollout, recipe)
    (span,) = scored.inserted
    assert scored.transcript[slice(*span)] == rollout.segments[1].text
    assert scored.transcript.startswith("<think>so</think>")


def test_no_answer_is_wrong_and_breaks_the_format(recipe) -> None:
    scored = score_trajectory(trajectory(None), recipe)
    assert (scored.answer, scored.em, scored.f1) == (None, 0.0, 0.0)
    assert scored.format_valid == 0.0


@pytest.mark.parametrize("answer", ["Paris", None])
def test_without_a_reference_nothing_is_right_or_wrong(recipe, answer) -> None:
    said = trajectory(answer)
    scored = score_trajectory(replace(said, question=replace(said.question, answers=())), recipe)
    assert scored.em is scored.f1 is None
    assert EvalResult.from_json(scored.as_json()) == scored


def test_a_method_without_search_has_no_recall(recipe) -> None:
    assert score_trajectory(searched("Paris"), recipe, "direct").title_recall is None
    assert score_trajectory(searched("Paris"), recipe, "rag").title_recall == 0.5


def test_without_a_server_nothing_is_timed(recipe) -> None:
    assert score_trajectory(trajectory("Paris"), recipe).seconds is None


def test_the_last_failed_search_is_kept(recipe) -> None:
    scored = score_trajectory(searched("Paris", error="late"), recipe)
    assert (scored.failed_searches, scored.search_failure, scored.failure) == (1, "late", None)


@pytest.mark.parametrize("answer", ["Paris [bold]", None])
def test_a_result_is_read_as_it_was_stored(recipe, answer: str | None) -> None:
    scored = replace(score_trajectory(trajectory(answer), recipe), judge=0.5, failure="none")
    assert EvalResult.from_json(json.loads(json.dumps(scored.as_json()))) == scored


def test_a_foreign_row_is_refused_by_field(result) -> None:
    row = result("q").as_json()
    row["exact"] = row.pop("em")
    with pytest.raises(DataMalformed, match=r"missing \['em'\], unknown \['exact'\]"):
        EvalResult.from_json(row)


RUN_0_1 = {
    "id": "world-test-3", "text": "Where?", "references": ["Vosbe"], "answer": "Vosbe", "em": 1.0,
    "f1": 1.0, "plan_valid": 1.0, "format_valid": 1.0, "searches": 2, "completion_tokens": 61,
    "transcript": "<think>a</think>", "inserted": [[3, 9]], "type": "bridge", "level": "hard",
    "failed_searches": 0,
}  # fmt: skip
EVALUATION_0_1 = {
    "method": "rag", **RUN_0_1, "judge": 0.5, "judged": True, "title_recall": 1.0,
    "seconds": 0.25, "usd": 0.001, "search_failure": None, "failure": None,
}  # fmt: skip


def test_predictions_of_earlier_runs_are_read() -> None:
    """Written by `rsearch train` before runs and evaluations shared one record."""
    stored = EvalResult.from_json(RUN_0_1)
    assert (stored.method, stored.em, stored.searches) == ("rsearch", 1.0, 2)
    assert (stored.references, stored.inserted) == (("Vosbe",), ((3, 9),))
    assert stored.seconds is stored.usd is stored.judge is None


def test_predictions_of_earlier_evaluations_are_read() -> None:
    stored = EvalResult.from_json(EVALUATION_0_1)
    assert (stored.method, stored.judge, stored.judged) == ("rag", 0.5, True)
    assert (stored.seconds, stored.usd, stored.title_recall) == (0.25, 0.001, 1.0)
    kept = {"references": ("Vosbe",), "inserted": ((3, 9),)}
    assert stored.as_json() == EVALUATION_0_1 | kept | {"failed_reads": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [("em", 7.0), ("f1", float("nan")), ("f1", None), ("judge", -0.1), ("searches", "2"),
     ("seconds", float("inf")), ("usd", [1])],
)  # fmt: skip
def test_a_number_that_no_evaluation_writes_is_named(name, value) -> None:
    with pytest.raises(DataMalformed, match=f"not a stored prediction: {name} is "):
        EvalResult.from_json(EVALUATION_0_1 | {name: value})
