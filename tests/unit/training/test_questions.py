"""The order of questions: a matter of the seed, with every question in every pass."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.training.questions import order_questions, require_answers
from rsearch_cli.types import Question


def test_every_pass_asks_every_question_in_an_order_of_its_own() -> None:
    order = order_questions(7, 21, seed=3)
    passes = [order[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_the_seed_decides_and_the_length_does_not() -> None:
    assert order_questions(7, 30, seed=3)[:10] == order_questions(7, 10, seed=3)
    assert order_questions(50, 50, seed=3) != order_questions(50, 50, seed=4)


def test_the_first_pass_is_the_one_that_trl_would_draw() -> None:
    from trl.trainer.utils import RepeatSampler

    sampler = RepeatSampler(range(20), mini_repeat_count=1, batch_size=4, seed=42)
    assert order_questions(20, 20, seed=42) == list(sampler)


def test_fewer_questions_than_a_step_wants_are_asked_again() -> None:
    assert sorted(order_questions(2, 4, seed=0)) == [0, 0, 1, 1]


def test_an_order_by_pass_rate_is_the_same_in_every_pass() -> None:
    assert order_questions(3, 7, seed=0, shuffled=False) == [0, 1, 2, 0, 1, 2, 0]


def asked(*answers: str) -> list[Question]:
    return [Question(f"q{i}", "?", (a,) if a else ()) for i, a in enumerate(answers)]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["reward.curriculum_steps=0"],
        ["reward.weights={answer: 0, plan: 0.5, format: 0.5}"],
        [
            "reward.curriculum_steps=0",
            "reward.weights={answer: 0, plan: 0.5, format: 0.5}",
            "reward.answer=judge",
        ],
    ],
)
def test_a_reward_with_answers_needs_them(settings: list[str]) -> None:
    recipe = load_recipe("quickstart", settings).recipe
    require_answers(recipe, asked("x", "y"), ())
    with pytest.raises(RecipeValueError, match="1 of the 2 training questions have no answer, wh"):
        require_answers(recipe, asked("x", ""), ())


def test_searches_alone_need_no_answer_but_the_best_adapter_does() -> None:
    recipe = load_recipe("real-text").recipe
    require_answers(recipe, asked("", ""), asked("", "x"))
    with pytest.raises(RecipeValueError, match=r"no question of evaluate\.slice_split has an answ"):
        require_answers(recipe, asked("", ""), asked("", ""))
