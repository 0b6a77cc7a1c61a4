"""Rewards whose parts are normalised one by one, as in GDPO."""

from __future__ import annotations

import pytest

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.reward.composite import combine, weights_at
from rsearch_cli.reward.normalised import training_rewards
from rsearch_cli.types import RewardParts

STEP = 100


def recipe(normalise: bool = True):
    settings = [
        "train.num_generations=2",
        "reward.extra={retrieval: 0.5}",
        f"reward.normalise_parts={str(normalise).lower()}",
    ]
    return load_recipe("quickstart", settings).recipe


def row(answer: float | None, plan: float, retrieval: float | None = 0.0) -> RewardParts:
    given = recipe()
    weights, extra = weights_at(STEP, given.reward), given.reward.extra
    return combine(answer, plan, 1.0, weights, True, {"retrieval": retrieval}, extra)


def test_the_totals_are_passed_on_unless_parts_are_normalised() -> None:
    rows = [row(1.0, 1.0), row(None, 1.0)]
    assert training_rewards(rows, recipe(normalise=False), STEP) == [1.0, None]


def test_a_small_difference_in_one_part_counts_as_much_as_a_large_one_in_another() -> None:
    # Sums of one size of difference: 0.02 in an answer, and 1 in the titles found.
    rows = [row(0.52, 1.0), row(0.5, 1.0), row(0.5, 1.0, 1.0), row(0.5, 1.0, 0.0)]
    first, second, third, fourth = training_rewards(rows, recipe(), STEP)
    unit = 2**-0.5  # of two values, each is this many sample deviations from their mean
    assert first == pytest.approx(0.5 * unit, rel=0.01) and second == pytest.approx(-first)
    assert third == pytest.approx(0.5 * unit, rel=0.01) and fourth == pytest.approx(-third)


def test_opposite_differences_that_a_sum_would_hide_keep_their_weights() -> None:
    tied = [row(0.0, 1.0, 0.5), row(0.5, 1.0, 0.0)]
    assert tied[0].total == tied[1].total
    rewards = training_rewards(tied, recipe(), STEP)
    assert rewards == pytest.approx([0.0, 0.0], abs=1e-9), "equal weights: the sum is tied too"
    heavier = load_recipe("quickstart", ["train.num_generations=2", "reward.normalise_parts=true",
                                         "reward.extra={retrieval: 1.0}"]).recipe  # fmt: skip
    first, second = training_rewards(tied, heavier, STEP)
    assert first > 0.3 and second == pytest.approx(-first)


def test_an_invalid_plan_earns_no_answer_and_unscored_rows_stay_out() -> None:
    gated = [row(1.0, 0.0), row(0.0, 0.0)]
    assert training_rewards(gated, recipe(), STEP) == [0.0, 0.0]
    assert training_rewards([row(None, 1.0), row(1.0, 1.0)], recipe(), STEP) == [None, 0.0]
    assert training_rewards([row(1.0, 1.0, None), row(1.0, 0.0)], recipe(), STEP)[0] is None
