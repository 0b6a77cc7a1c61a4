"""Confidence intervals of means over questions, each with the name of its method.

A share, such as exact match, gets Wilson's score interval, a difference of two paired shares the
interval of Bonett and Price, and any other mean a percentile bootstrap over the questions. The
bootstrap only resamples the values it was given: of four scores of 1 it returns `[1, 1]`. If fewer
than `LEAST_DIFFERENT` scores differ from the most common one, the formula for shares is used
instead. It is conservative, since no score in [0, 1] varies more than a share of the same mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from rsearch_cli.errors import DataEmpty

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WILSON, BONETT_PRICE, BOOTSTRAP = "Wilson", "Bonett-Price", "bootstrap"

LEVEL = 0.95
"""Confidence level of all intervals."""

LEAST_DIFFERENT = 10
"""Least number of scores that differ from the most common one for a bootstrap."""

METHODS = (
    "95 % intervals: Wilson for shares, Bonett-Price for their paired differences, percentile "
    f"bootstrap over questions for other means (as for shares if fewer than {LEAST_DIFFERENT} "
    "scores differ from the most common one)"
)
"""Caption of a table with intervals."""

# Indices drawn at once: 16 MB of 8 bytes each, whatever the number of questions.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A closed interval, in the unit of its values, and the method that computed it."""

    low: float
    high: float
    method: str


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the interval of the mean of scores in [0, 1], by the method that suits them.

    Args:
        values: `[n]` One score per question.

    Raises:
        DataEmpty: There are no values.
    """
    if _fit_bootstrap(values):
        return bootstrap_interval(values)
    return wilson_interval(sum(values), len(values))


def paired_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, Interval]:
    """Return the mean of `after - before` over questions, with its interval.

    Scores are paired, so the difficulty of a question cancels out: the bootstrap draws a question
    with both of its scores (Koehn 2004, Statistical significance tests for machine translation
    evaluation).

    Args:
        before: `[n]` One score in [0, 1] per question.
        after: `[n]` Scores of the same questions in the same order.

    Raises:
        DataEmpty: There are no values.
        ValueError: The two have different lengths.
    """
    gains = [new - old for old, new in zip(before, after, strict=True)]
    if _fit_bootstrap(gains):
        interval = bootstrap_interval(gains)
    else:
        gained, lost = (sum(max(0.0, sign * gain) for gain in gains) for sign in (1, -1))
        interval = bonett_price_interval(gained, lost, len(gains))
    return sum(gains) / len(gains), interval


def wilson_interval(right: float, n: int) -> Interval:
    """Return the score interval of a share (Wilson 1927).

    Args:
        right: Number of successes; a sum of scores in [0, 1] gives a conservative interval.
        n: Number of trials.

    Raises:
        DataEmpty: `n` is 0.
    """
    z = _quantile(n)
    share = right / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return Interval(max(0.0, low), min(1.0, high), WILSON)


def bonett_price_interval(gained: float, lost: float, n: int) -> Interval:
    """Return the interval of the difference of two paired shares (Bonett and Price 2012).

    Args:
        gained: Questions that only the second answers correctly, or a sum of gains in [0, 1].
        lost: Questions that only the first answers correctly, or a sum of losses.
        n: Number of questions.

    Raises:
        DataEmpty: `n` is 0.
    """
    z = _quantile(n)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    spread = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval(max(-1.0, up - down - spread), min(1.0, up - down + spread), BONETT_PRICE)


def bootstrap_interval(values: Sequence[float], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: `[n]` One score per question.
        resamples: Number of resamples of n questions, with replacement.
        seed: Same seed and values, same interval.

    Raises:
        DataEmpty: There are no values.
    """
    import numpy as np

    _quantile(len(values))
    scores = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CHUNK // len(scores))
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = rng.integers(len(scores), size=(stop - start, len(scores)))
        means[start:stop] = scores[drawn].mean(axis=1)
    quantiles: NDArray[np.float64] = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(quantiles[0]), float(quantiles[1]), BOOTSTRAP)


def _fit_bootstrap(values: Sequence[float]) -> bool:
    """Whether the values vary enough for a bootstrap of their mean."""
    counts = Counter(values)
    common = max(counts.values(), default=0)
    is_share = all(value in (-1.0, 0.0, 1.0) for value in counts)
    return not is_share and len(values) - common >= LEAST_DIFFERENT


def _quantile(n: int) -> float:
    """Return the quantile of the normal distribution for a two-sided interval.

    Raises:
        DataEmpty: There are no values.
    """
    if not n:
        raise DataEmpty("no interval of 0 values; evaluate at least one question")
    return NormalDist().inv_cdf((1 + LEVEL) / 2)
