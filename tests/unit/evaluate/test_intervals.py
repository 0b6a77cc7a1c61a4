"""Bootstrap intervals against cases whose answer is known without a bootstrap."""

from __future__ import annotations

import math

import pytest

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluate import intervals
from rsearch_cli.evaluate.intervals import Interval, bootstrap_interval, paired_difference


def test_two_values_give_the_binomial_quantiles() -> None:
    # The mean of two draws from {0, 1} is 0, 1/2 or 1 with chances 1/4, 1/2 and 1/4.
    assert bootstrap_interval([0.0, 1.0], level=0.95) == Interval(0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.40) == Interval(0.5, 0.5)


def test_many_values_approach_the_normal_interval() -> None:
    scores = [1.0] * 120 + [0.0] * 280
    interval = bootstrap_interval(scores)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert interval.low == pytest.approx(0.3 - half, abs=0.004)
    assert interval.high == pytest.approx(0.3 + half, abs=0.004)


def test_a_higher_level_is_wider() -> None:
    scores = [i / 50 for i in range(50)]
    wide, narrow = bootstrap_interval(scores, level=0.99), bootstrap_interval(scores, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("scores", [[0.25], [1.0] * 7, [0.0] * 300])
def test_equal_values_have_no_width(scores: list[float]) -> None:
    assert bootstrap_interval(scores) == Interval(scores[0], scores[0])


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
    with pytest.raises(DataEmpty, match="0 values given; evaluate at least one"):
        bootstrap_interval([])


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_levels_are_shares(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        bootstrap_interval([0.0, 1.0], level=level)


def test_pairing_cancels_the_difficulty_of_the_questions() -> None:
    before = [i / 100 for i in range(100)]
    after = [score + 0.1 for score in before]
    mean, interval = paired_difference(before, after)
    assert mean == pytest.approx(0.1)
    assert (interval.low, interval.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_a_paired_difference_is_after_minus_before() -> None:
    mean, interval = paired_difference([0.0] * 20 + [1.0] * 5, [1.0] * 20 + [0.0] * 5)
    assert mean == pytest.approx(0.6)
    assert 0.2 < interval.low < 0.6 < interval.high < 1.0


def test_pairs_need_two_sides() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.0, 1.0], [1.0])
    with pytest.raises(DataEmpty, match="0 values"):
        paired_difference([], [])
