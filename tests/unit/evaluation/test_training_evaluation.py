"""Evaluations of a training: greedy and sampled answers, their difference, the validation slice."""

from __future__ import annotations

import json

import pytest

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.training_evaluation import (
    Evaluation,
    evaluate_policy,
    score_slice,
    summarise_difference,
    summarise_evaluation,
)
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question, Segment, Trajectory
from rsearch_cli.ui.tables import training_table

QUESTIONS = [Question(f"q{i}", f"Which river, {i}?", ("Tiber",)) for i in range(4)]


def test_a_training_reports_both_decodings(results):
    summary = summarise_evaluation(Evaluation(results(1, 1, 0, 1), results(0, 1, 0, 0)))
    assert (summary["em"], summary["em_sampled"], summary["n"]) == (0.75, 0.25, 4)
    assert (summary["f1"], summary["f1_sampled"]) == (0.75, 0.25)
    assert (summary["plan_valid"], summary["format_valid"]) == (1.0, 1.0)
    assert (summary["searches"], summary["failed_searches"]) == (8, 0)
    assert set(summary["intervals"]) == {
        *("em", "em_sampled", "f1", "f1_sampled", "plan_valid", "format_valid")
    }
    low, high = summary["intervals"]["em"]
    assert low < 0.75 < high
    assert summary["intervals"]["plan_valid"] == [pytest.approx(0.5101, abs=1e-4), 1.0]
    assert set(summary["interval_methods"].values()) == {"Wilson"}
    assert json.loads(json.dumps(summary)) == summary


def test_plan_and_format_are_those_of_the_greedy_answers(result, results):
    greedy = [result("q0", plan_valid=0.0), result("q1", format_valid=0.0)]
    summary = summarise_evaluation(Evaluation(greedy, results(1, 1)))
    assert (summary["plan_valid"], summary["format_valid"]) == (0.5, 0.5)


def test_a_summary_without_samples_says_null(results):
    summary = summarise_evaluation(Evaluation(results(1, 0)))
    assert summary["em_sampled"] is summary["f1_sampled"] is None
    assert "em_sampled" not in summary["intervals"]


def test_samples_of_other_questions_are_refused(results):
    with pytest.raises(DataError, match="1 ids are in only one of them, such as 'q2'"):
        summarise_evaluation(Evaluation(results(1, 0), results(1, 0, 1)))


def test_the_difference_of_a_training_is_paired_by_question(results):
    before, after = results(0, 0, 0, 1), results(1, 1, 1, 0)
    difference = summarise_difference(Evaluation(before, before), Evaluation(after, after))
    assert difference["em"] == difference["em_sampled"] == 0.5
    assert difference["n"] == 4
    low, high = difference["intervals"]["em"]
    assert low < 0.5 < high
    low, high = difference["intervals"]["plan_valid"]
    assert -low == high == pytest.approx(0.462, abs=1e-3)
    assert difference["interval_methods"]["plan_valid"] == "Bonett-Price"


def test_the_difference_keeps_greedy_and_sampled_apart(results):
    zeros, ones, half = results(0, 0), results(1, 1), results(0, 1)
    difference = summarise_difference(Evaluation(zeros, half), Evaluation(ones, half))
    assert (difference["em"], difference["em_sampled"]) == (1.0, 0.0)


@pytest.mark.parametrize("sampled_before", [False, True])
def test_a_difference_without_samples_on_both_sides_says_null(results, sampled_before):
    before = Evaluation(results(1, 0), results(1, 0) if sampled_before else None)
    difference = summarise_difference(before, Evaluation(results(1, 1)))
    assert difference["em"] == 0.5
    assert difference["em_sampled"] is difference["f1_sampled"] is None
    assert "em_sampled" not in difference["intervals"]


def test_questions_without_answers_are_compared_by_their_searches(result):
    def side(*recalls: float) -> Evaluation:
        known = {"references": (), "em": None, "f1": None}
        rows = [result(f"q{i}", title_recall=r, **known) for i, r in enumerate(recalls)]
        return Evaluation(rows, rows)

    before, after = side(0.5, 0.0), side(1.0, 1.0)
    summary, difference = summarise_evaluation(before), summarise_difference(before, after)
    assert summary["em"] is summary["f1_sampled"] is None
    assert set(summary["intervals"]) == {"title_recall", "all_titles", "plan_valid", "format_valid"}
    assert difference["em"] is difference["em_sampled"] is difference["f1"] is None
    assert difference["title_recall"] == 0.75
    table = training_table({"before": summary, "after": summary, "difference": difference})
    assert [row[0] for row in table.rows] == [
        *("title recall", "all titles", "plan valid", "format valid", "questions")
    ]


class Scripted:
    """A rollout that answers every other question right."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.temperatures: list[float] = []

    def run(self, questions, sampling, on_done):
        self.temperatures.append(sampling.temperature)
        on_done(len(questions))
        answers = ["Tiber" if i % 2 else "Tiber or Arno" for i in range(len(questions))]
        return [
            Trajectory(q, (5,), "", (Segment("text", (1, 2, 3), "model"),), (), answer, "answer")
            for q, answer in zip(questions, answers, strict=True)
        ]


def test_the_slice_is_scored_by_means_over_greedy_answers() -> None:
    rollout = Scripted(load_recipe("quickstart").recipe)
    assert score_slice(rollout, QUESTIONS) == {
        "f1": 0.75,
        "em": 0.5,
        "title_recall": None,
        "all_titles": None,
        "plan_valid": 0.0,
        "format_valid": 0.0,
        "completion_length": 3.0,
        "n": 4,
    }
    assert rollout.temperatures == [0.0]


@pytest.mark.stack
@pytest.mark.parametrize("sampled", [True, False])
def test_a_policy_is_sampled_only_if_the_recipe_asks_for_it(sampled) -> None:
    rollout = Scripted(load_recipe("quickstart", [f"evaluate.sampled={sampled}"]).recipe)
    done: list[int] = []
    evaluation = evaluate_policy(rollout, QUESTIONS, done.append)
    assert [result.em for result in evaluation.greedy] == [0.0, 1.0, 0.0, 1.0]
    assert (evaluation.sampled is not None) == sampled
    assert rollout.temperatures == [0.0, rollout.recipe.rollout.temperature][: 1 + sampled]
    assert sum(done) == 4 * (1 + sampled)
