"""Intervals against published figures, against each other, and against simulated evaluations."""

from __future__ import annotations

import math
import random

import pytest

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluation import intervals
from rsearch_cli.evaluation.intervals import (
    BONETT_PRICE,
    BOOTSTRAP,
    LEAST_DIFFERENT,
    WILSON,
    Interval,
    bonett_price_interval,
    bootstrap_interval,
    mean_interval,
    paired_difference,
    wilson_interval,
)


def bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # Newcombe 1998, Two-sided confidence intervals for the single proportion, table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_intervals(
    right: int, n: int, low: float, high: float
) -> None:
    assert bounds(wilson_interval(right, n)) == (
        pytest.approx(low, abs=5e-5),
        pytest.approx(high, abs=5e-5),
    )


def test_all_right_is_not_certain() -> None:
    four = mean_interval([1.0] * 4)
    assert (four.method, four.high) == (WILSON, 1.0)
    assert four.low == pytest.approx(0.5101, abs=1e-4)
    assert bounds(mean_interval([0.0] * 4)) == (0.0, pytest.approx(1 - four.low))
    assert mean_interval([1.0] * 200).low > four.low


@pytest.mark.parametrize("scores", [[0.25], [0.5] * 7, [1.0, 0.67], [1.0] * 200 + [0.5]])
def test_scores_that_hardly_differ_get_the_wider_formula(scores: list[float]) -> None:
    interval = mean_interval(scores)
    assert interval.method == WILSON
    assert interval.low < sum(scores) / len(scores) < interval.high
    narrow = bootstrap_interval(scores)
    assert interval.low < narrow.low
    assert interval.high - interval.low > narrow.high - narrow.low


def test_scores_that_differ_are_bootstrapped() -> None:
    scores = [1.0] * 90 + [0.5] * LEAST_DIFFERENT
    assert mean_interval(scores) == bootstrap_interval(scores)
    assert mean_interval(scores).method == BOOTSTRAP
    assert mean_interval(scores[1:-1]).method == WILSON


def test_no_change_at_all_is_not_certain_either() -> None:
    mean, interval = paired_difference([1.0, 0.0] * 100, [1.0, 0.0] * 100)
    assert (mean, interval.method) == (0.0, BONETT_PRICE)
    assert interval.high == -interval.low == pytest.approx(0.0137, abs=1e-4)
    assert paired_difference([1.0] * 4, [1.0] * 4)[1].high > 0.4


def test_bonett_price_follows_its_formula() -> None:
    # 8 gained and 2 lost of 30: (9 - 3) / 32 and 1.96 sqrt((12 / 32 - (6 / 32)^2) / 32).
    half = 1.959964 * math.sqrt((12 / 32 - (6 / 32) ** 2) / 32)
    found = bounds(bonett_price_interval(8, 2, 30))
    assert found == (pytest.approx(6 / 32 - half), pytest.approx(6 / 32 + half))
    assert bounds(bonett_price_interval(2, 8, 30)) == (-found[1], -found[0])


def test_a_paired_difference_is_after_minus_before() -> None:
    mean, interval = paired_difference([0.0] * 20 + [1.0] * 5, [1.0] * 20 + [0.0] * 5)
    assert (mean, interval.method) == (pytest.approx(0.6), BONETT_PRICE)
    assert 0.2 < interval.low < 0.6 < interval.high < 1.0


def test_pairing_cancels_the_difficulty_of_the_questions() -> None:
    rng = random.Random(1)
    before = [rng.random() * 0.8 for _ in range(100)]
    after = [score + 0.1 + rng.random() * 0.02 for score in before]
    mean, interval = paired_difference(before, after)
    assert interval.method == BOOTSTRAP
    assert interval.high - interval.low < 0.005 < mean_interval(before).high - mean


@pytest.mark.parametrize(("share", "n"), [(0.5, 6), (0.9, 10), (0.98, 50), (0.3, 200)])
def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says(share: float, n: int) -> None:
    rng = random.Random(7)
    held = 0
    for _ in range(2000):
        found = mean_interval([float(rng.random() < share) for _ in range(n)])
        held += found.low <= share <= found.high
    assert held / 2000 > 0.90


@pytest.mark.parametrize("n", [5, 20, 200])
def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says(n: int) -> None:
    rng = random.Random(7)
    held = 0
    for _ in range(2000):
        before = [float(rng.random() < 0.5) for _ in range(n)]
        after = [score if rng.random() < 0.7 else float(rng.random() < 0.9) for score in before]
        found = paired_difference(before, after)[1]
        held += found.low <= 0.3 * (0.9 - 0.5) <= found.high
    assert held / 2000 > 0.93


def test_two_values_give_the_binomial_quantiles() -> None:
    # The mean of two draws from {0, 1} is 0, 1/2 or 1 with chances 1/4, 1/2 and 1/4.
    assert bounds(bootstrap_interval([0.0, 1.0])) == (0.0, 1.0)


def test_many_values_approach_the_normal_interval() -> None:
    scores = [1.0] * 120 + [0.0] * 280
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    for interval in (bootstrap_interval(scores), mean_interval(scores)):
        assert interval.low == pytest.approx(0.3 - half, abs=0.004)
        assert interval.high == pytest.approx(0.3 + half, abs=0.004)


def test_the_seed_decides() -> None:
    scores = [(i * 0.37) % 1 for i in range(31)]
    assert bootstrap_interval(scores, seed=1) == bootstrap_interval(scores, seed=1)
    assert bootstrap_interval(scores, seed=1) != bootstrap_interval(scores, seed=2)


def test_every_resample_is_used_when_they_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_CHUNK", 30)
    interval = bootstrap_interval([0.0, 1.0] * 5, resamples=1001)
    assert 0.1 <= interval.low <= 0.3
    assert 0.7 <= interval.high <= 0.9


def test_no_values_are_an_error() -> None:
    for make in (bootstrap_interval, mean_interval):
        with pytest.raises(DataEmpty, match="0 values; evaluate at least one"):
            make([])
    with pytest.raises(DataEmpty, match="0 values"):
        paired_difference([], [])


def test_pairs_need_two_sides() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.0, 1.0], [1.0])
