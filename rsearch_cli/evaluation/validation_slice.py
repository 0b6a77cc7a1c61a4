"""The validation slice: held-out questions, answered greedily every few steps of a training.

The best adapter is chosen by these scores, so the questions are none of those reported on.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsearch_cli.errors import DataEmpty
from rsearch_cli.questions.sets import QuestionSet
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question


def load_slice(
    question_set: QuestionSet, recipe: Recipe, reported: Sequence[Question]
) -> list[Question]:
    """Load the questions of the validation slice; [] without validation.

    Args:
        question_set: The question set of the run.
        recipe: Its evaluate section is read.
        reported: Questions evaluated before and after the training; none of them is taken.

    Raises:
        DataError: There is no such split.
        DataEmpty: The split has no other question.
    """
    settings = recipe.evaluate
    if settings.every_steps is None:
        return []
    taken = {question.id for question in reported}
    found = question_set.load(settings.slice_split, len(reported) + settings.slice)
    free = [question for question in found if question.id not in taken]
    if not free:
        raise DataEmpty(
            f"evaluate.slice: all {len(found)} questions of split '{settings.slice_split}' are "
            "evaluated at the end; lower evaluate.limit, or name another evaluate.slice_split"
        )
    return free[: settings.slice]
