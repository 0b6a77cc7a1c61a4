"""Two answers to each question: how far apart they are, whether that can be chance, what flipped.

Place in the path: takes the rows of two evaluations, or of two methods of one; gives what `rsearch
eval compare` prints. On failure: rows of different questions, or of other texts under the same ids,
raise `DataError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.intervals import paired_difference
from rsearch_cli.evaluation.metrics import pair_up
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.significance import mcnemar_exact, sign_flip_test
from rsearch_cli.evaluation.summary import METRICS

Pair = tuple[EvalResult, EvalResult]

# Right or wrong; all others are scores in [0, 1].
_BINARY = frozenset({"em", "plan_valid", "format_valid"})


def compare_records(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> dict[str, Any]:
    """Paired differences, second minus first.

    Returns:
        `n` questions; `metrics`: by name `first`, `second`, `difference`, its 95 % `interval` and
        `interval_method`, `p` and its `test` (exact McNemar, or random sign flips), and the `n`
        that both sides have a score of; `gained` and `lost`: the questions whose exact match
        flipped, with both answers.

    Raises:
        DataError: The two are not of the same questions.
        DataEmpty: There are no questions.
    """
    pairs = pair_records(first, second)
    answered = [pair for pair in pairs if not (pair[0].failure or pair[1].failure)]
    flips = [(a, b) for a, b in answered if a.prediction.em != b.prediction.em]
    return {
        "n": len(pairs),
        "metrics": {name: row for name in METRICS if (row := _compare(answered, name))},
        "gained": [_tell(pair) for pair in flips if pair[1].prediction.em],
        "lost": [_tell(pair) for pair in flips if pair[0].prediction.em],
    }


def pair_records(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> list[Pair]:
    """Both rows of each question, in the order of `first`.

    Raises:
        DataError: The ids differ, one occurs twice, or a text or a reference has changed.
    """
    pair_up([r.prediction for r in first], [r.prediction for r in second])
    by_id = {record.prediction.id: record for record in second}
    pairs = [(record, by_id[record.prediction.id]) for record in first]
    for old, new in ((a.prediction, b.prediction) for a, b in pairs):
        if (old.text, old.references) != (new.text, new.references):
            raise DataError(
                f"question {old.id!r} is another one in the two evaluations: {old.text!r} and "
                f"{new.text!r} (or its reference answers differ); evaluate both on the same file"
            )
    return pairs


def _compare(pairs: Sequence[Pair], name: str) -> dict[str, Any] | None:
    scores = [(METRICS[name](a), METRICS[name](b)) for a, b in pairs]
    both = [(a, b) for a, b in scores if a is not None and b is not None]
    if not both:
        return None
    first, second = [a for a, _ in both], [b for _, b in both]
    difference, interval = paired_difference(first, second)
    gains = [b - a for a, b in both]
    if name in _BINARY:
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
        "test": "McNemar" if name in _BINARY else "sign flips",
    }


def _tell(pair: Pair) -> dict[str, Any]:
    first, second = (record.prediction for record in pair)
    return {
        "id": first.id,
        "question": first.text,
        "references": list(first.references),
        "first": first.answer,
        "second": second.answer,
    }
