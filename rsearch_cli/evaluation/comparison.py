"""Compare two answers to each question: differences, significance tests, and flipped questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.intervals import paired_difference
from rsearch_cli.evaluation.metrics import BINARY, METRICS
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.significance import mcnemar_exact, sign_flip_test

Pair = tuple[EvalResult, EvalResult]


def compare(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> dict[str, Any]:
    """Compare two lists of results, paired by question.

    Returns:
        `n` questions; `metrics`: by name the means `first` and `second`, their `difference` (second
        minus first) with its 95 % `interval` and `interval_method`, `p` and its `test` (exact
        McNemar, or random sign flips), and the `n` questions that both sides have a score for;
        `gained` and `lost`: the questions whose exact match flipped, with both answers. A question
        that either side has no answer for counts in `n` only.

    Raises:
        DataError: The two are not of the same questions.
    """
    pairs = pair_results(first, second)
    answered = [pair for pair in pairs if not (pair[0].failure or pair[1].failure)]
    flips = [(a, b) for a, b in answered if a.em != b.em]
    return {
        "n": len(pairs),
        "metrics": {name: row for name in METRICS if (row := _compare_metric(answered, name))},
        "gained": [_describe_flip(pair) for pair in flips if pair[1].em],
        "lost": [_describe_flip(pair) for pair in flips if pair[0].em],
    }


def pair_results(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> list[Pair]:
    """Return both results of each question, in the order of `first`.

    Raises:
        DataError: The ids differ, one occurs twice, or a question or its references have changed.
    """
    by_id = {result.id: result for result in second}
    ids = {result.id for result in first}
    if ids != by_id.keys():
        strays = sorted(ids ^ by_id.keys())
        raise DataError(
            f"two evaluations of different questions cannot be compared: {len(strays)} ids are in "
            f"only one of them, such as {strays[0]!r}; evaluate both on the same split and limit"
        )
    if not len(ids) == len(first) == len(second):
        raise DataError(
            f"an evaluation contains a question twice: {len(ids)} ids for {len(first)} and "
            f"{len(second)} predictions; give every question its own id"
        )
    pairs = [(result, by_id[result.id]) for result in first]
    for old, new in pairs:
        if (old.text, old.references) != (new.text, new.references):
            raise DataError(
                f"question {old.id!r} differs between the two evaluations: {old.text!r} and "
                f"{new.text!r} (or their reference answers differ); evaluate both on the same file"
            )
    return pairs


def _compare_metric(pairs: Sequence[Pair], name: str) -> dict[str, Any] | None:
    scores = [(METRICS[name](a), METRICS[name](b)) for a, b in pairs]
    both = [(a, b) for a, b in scores if a is not None and b is not None]
    if not both:
        return None
    first, second = [a for a, _ in both], [b for _, b in both]
    difference, interval = paired_difference(first, second)
    gains = [b - a for a, b in both]
    if name in BINARY:
        p = mcnemar_exact(sum(g > 0 for g in gains), sum(g < 0 for g in gains))
    else:
        p = sign_flip_test(gains)
    return {
        "n": len(both),
        "first": sum(first) / len(first),
        "second": sum(second) / len(second),
        "difference": difference,
        "interval": [interval.low, interval.high],
        "interval_method": interval.method,
        "p": p,
        "test": "McNemar" if name in BINARY else "sign flips",
    }


def _describe_flip(pair: Pair) -> dict[str, Any]:
    first, second = pair
    return {
        "id": first.id,
        "question": first.text,
        "references": list(first.references),
        "first": first.answer,
        "second": second.answer,
    }
