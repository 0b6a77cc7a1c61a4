"""Significance tests of paired differences: exact McNemar, and random sign flips."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

FLIPS = 20_000
"""Random sign assignments per test; the smallest p-value is 1 / (FLIPS + 1)."""

# Signs drawn at once: 16 MB of 8 bytes each, whatever the number of questions.
_CHUNK = 2_000_000


def mcnemar_exact(gained: int, lost: int) -> float:
    """Return the p-value of the two-sided exact McNemar test (McNemar 1947; binomial form).

    Under the null hypothesis, every question whose correctness changed could equally well have
    changed in the other direction.

    Args:
        gained: Questions that only the second answers correctly.
        lost: Questions that only the first answers correctly.
    """
    changed = gained + lost
    # Exact integers up to the division: comb() is huge for thousands of questions.
    tail = sum(comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


def sign_flip_test(differences: Sequence[float], flips: int = FLIPS, seed: int = 0) -> float:
    """Return the p-value of a two-sided paired permutation test of the mean (Fisher 1935).

    Under the null hypothesis, the two scores of a question could have been swapped, which flips the
    sign of their difference. The observed assignment counts as one of the draws (Phipson and Smyth
    2010), so the p-value is never 0; without any difference it is 1.

    Args:
        differences: `[n]` Second minus first, one per question.
        flips: Number of random sign assignments.
        seed: Same seed and differences, same p-value.
    """
    import numpy as np

    values = np.asarray([d for d in differences if d != 0.0], dtype=np.float64)
    if not len(values):
        return 1.0
    observed = abs(values.sum())
    rng = np.random.default_rng(seed)
    as_far, rows = 0, max(1, _CHUNK // len(values))
    for start in range(0, flips, rows):
        signs = rng.integers(2, size=(min(rows, flips - start), len(values))) * 2 - 1
        # Sums of thirds and fifths differ in their last bits; equal ones count as equally far.
        as_far += int((abs(signs @ values) >= observed - 1e-9).sum())
    return (as_far + 1) / (flips + 1)
