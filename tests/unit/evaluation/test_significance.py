"""Tests of paired differences, against values worked out by hand."""

from __future__ import annotations

from itertools import product

import pytest

from rsearch_cli.evaluation.significance import mcnemar_exact, sign_flip_test


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (4, 4, 1.0),
    ],
)
def test_mcnemar_is_a_two_sided_sign_test(gained, lost, p):
    assert mcnemar_exact(gained, lost) == pytest.approx(p)


def test_mcnemar_takes_thousands_of_changes():
    assert 0.0 < mcnemar_exact(2600, 2400) < 0.01


def test_no_difference_is_no_evidence():
    assert sign_flip_test([0.0, 0.0]) == 1.0
    assert sign_flip_test([]) == 1.0


def test_random_flips_come_close_to_all_flips():
    gains = [0.5, 0.2, -0.1, 0.4, 0.3, 0.0, -0.2, 0.6]
    sums = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True)))
        for signs in product((-1, 1), repeat=len(gains))
    ]
    exact = sum(s >= abs(sum(gains)) - 1e-9 for s in sums) / len(sums)
    assert sign_flip_test(gains) == pytest.approx(exact, abs=0.01)


def test_the_sign_of_the_difference_does_not_matter():
    gains = [0.5, 0.25, -0.125, 1.0]
    assert sign_flip_test(gains) == sign_flip_test([-g for g in gains])
