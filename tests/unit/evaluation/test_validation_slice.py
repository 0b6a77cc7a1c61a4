"""The validation slice: other questions than those that are reported on."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import DataEmpty, DataError
from rsearch_cli.evaluation.validation_slice import load_slice
from rsearch_cli.questions.sets import FileQuestionSet
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

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
