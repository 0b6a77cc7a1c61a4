"""How sure a mean over questions is: percentile bootstrap intervals.

Place in the path: `metrics` asks for one interval a metric. On failure: no values at all raise
`DataEmpty`; a level outside (0, 1) raises ValueError. Degenerate input is answered as the bootstrap
answers it: equal values, or a single one, give an interval of width zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsearch_cli.errors import DataEmpty

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Indices drawn at once: 16 MB at 8 bytes each, whatever the number of questions.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A closed interval, in the unit of the values it was made from."""

    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: `[n]` One score a question.
        level: Share of resampled means inside the interval, in (0, 1).
        resamples: How often the n questions are drawn anew, with replacement.
        seed: Same seed and values, same interval.

    Raises:
        DataEmpty: There are no values.
        ValueError: `level` is not in (0, 1).
    """
    import numpy as np

    if not len(values):
        raise DataEmpty("no interval without questions: 0 values given; evaluate at least one")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, it is {level:g}")
    scores = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CHUNK // len(scores))
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = rng.integers(len(scores), size=(stop - start, len(scores)))
        means[start:stop] = scores[drawn].mean(axis=1)
    quantiles: NDArray[np.float64] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(quantiles[0]), float(quantiles[1]))


def paired_difference(
    before: Sequence[float],
    after: Sequence[float],
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, Interval]:
    """Mean of `after - before` over questions, with its interval.

    The bootstrap is paired: a question is drawn with both of its scores, so that its difficulty
    cancels out (Koehn 2004, Statistical significance tests for machine translation evaluation).

    Args:
        before: `[n]` One score a question.
        after: `[n]` Scores of the same questions in the same order.
        level: As in `bootstrap_interval`.
        resamples: As in `bootstrap_interval`.
        seed: As in `bootstrap_interval`.

    Raises:
        DataEmpty: There are no values.
        ValueError: The two have different lengths, or `level` is not in (0, 1).
    """
    gains = [new - old for old, new in zip(before, after, strict=True)]
    interval = bootstrap_interval(gains, level, resamples, seed)
    return sum(gains) / len(gains), interval
