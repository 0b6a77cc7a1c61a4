"""The order of questions: a matter of the seed, with every question in every pass."""

from __future__ import annotations

from rsearch_cli.training.questions import order_questions


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
