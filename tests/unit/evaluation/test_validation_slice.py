"""The validation slice: other questions than those that are reported on."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import DataEmpty, DataError
from rsearch_cli.evaluation.validation_slice import load_slice, score_slice
from rsearch_cli.questions.sets import FileQuestionSet
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question, Segment, Trajectory

QUESTIONS = [Question(f"q{i}", f"Which river, {i}?", ("Tiber",)) for i in range(6)]
SET = FileQuestionSet("rivers", "", {"validation": QUESTIONS, "train": QUESTIONS})


def recipe(*settings: str) -> Recipe:
    return load_recipe("quickstart", ["evaluate.every_steps=5", *settings]).recipe


@pytest.mark.parametrize(
    ("asked", "size", "ids"),
    [(0, 2, "q0 q1"), (2, 3, "q2 q3 q4"), (4, 50, "q4 q5")],
)
def test_no_question_of_the_slice_is_reported_on(asked: int, size: int, ids: str) -> None:
    found = load_slice(SET, recipe(f"evaluate.slice={size}"), QUESTIONS[:asked])
    assert [question.id for question in found] == ids.split()


def test_a_slice_needs_a_question_to_spare_and_a_split() -> None:
    message = "all 6 questions of split 'validation' are evaluated at the end; lower evaluate.limit"
    with pytest.raises(DataEmpty, match=message):
        load_slice(SET, recipe(), QUESTIONS)
    with pytest.raises(DataError, match="rivers has no split 'other'"):
        load_slice(SET, recipe("evaluate.slice_split=other"), [])


def test_without_validation_no_question_is_read() -> None:
    assert load_slice(SET, recipe("evaluate.every_steps=null"), QUESTIONS) == []


class Scripted:
    """A rollout that answers every other question right."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def run(self, questions, sampling, on_done):
        assert sampling.temperature == 0, "greedily"
        answers = ["Tiber" if i % 2 else "Tiber or Arno" for i in range(len(questions))]
        return [
            Trajectory(q, (5,), "", (Segment("text", (1, 2, 3), "model"),), (), answer, "answer")
            for q, answer in zip(questions, answers, strict=True)
        ]


def test_the_scores_are_means_over_greedy_answers() -> None:
    scores = score_slice(Scripted(recipe()), QUESTIONS[:4])
    assert scores == {
        "f1": 0.75,
        "em": 0.5,
        "plan_valid": 0.0,
        "format_valid": 0.0,
        "completion_length": 3.0,
        "n": 4,
    }
