"""The validation slice: other questions than those that are reported on, answered greedily.

Place in the path: training asks for its scores every few steps and keeps the best adapter by them.
On failure: a split that is missing or has no question to spare raises `DataError` before the model
is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluation.evaluation import answer_questions
from rsearch_cli.questions.sets import QuestionSet
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.types import Question


def load_slice(
    question_set: QuestionSet, recipe: Recipe, asked: Sequence[Question]
) -> list[Question]:
    """The questions of the validation slice, [] if there is no validation.

    The best adapter is chosen on them, so none of them may be among those it is reported on.

    Raises:
        DataError: There is no such split.
        DataEmpty: No question of the split is left.
    """
    settings = recipe.evaluate
    if settings.every_steps is None:
        return []
    reported = {question.id for question in asked}
    found = question_set.load(settings.slice_split, len(asked) + settings.slice)
    free = [question for question in found if question.id not in reported]
    if not free:
        raise DataEmpty(
            f"evaluate.slice: all {len(found)} questions of split '{settings.slice_split}' are "
            "evaluated at the end; lower evaluate.limit, or name another evaluate.slice_split"
        )
    return free[: settings.slice]


def score_slice(
    rollout: Rollout, questions: Sequence[Question], recipe: Recipe
) -> dict[str, float | int]:
    """Answer the questions of a slice greedily.

    Returns:
        The means `f1`, `em`, `plan_valid` and `format_valid`, each in [0, 1]; `completion_length`,
        the mean number of tokens that the policy wrote; and `n` questions.
    """
    predictions = answer_questions(rollout, questions, recipe)
    means = {
        name: fmean(getattr(p, name) for p in predictions)
        for name in ("f1", "em", "plan_valid", "format_valid")
    }
    length = fmean(p.completion_tokens for p in predictions)
    return {**means, "completion_length": length, "n": len(predictions)}
