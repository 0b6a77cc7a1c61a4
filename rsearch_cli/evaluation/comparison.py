"""Compare two sets of answers by question: differences, significance tests, flipped questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.intervals import paired_difference
from rsearch_cli.evaluation.metrics import BINARY
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.samples import Answers, by_question, pass_scores, question_scores
from rsearch_cli.evaluation.significance import mcnemar_exact, sign_flip_test

Pair = tuple[EvalResult, EvalResult]


def compare(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> dict[str, Any]:
    """Compare two lists of results, paired by question.

    Samples of a question count as one: their mean is its score, and pass@k is compared where both
    sides have k samples. Either side may have greedy answers instead.

    Returns:
        `n` questions; `metrics`: by name the means `first` and `second`, their `difference` (second
        minus first) with its 95 % `interval` and `interval_method`, `p` and its `test` (exact
        McNemar, or random sign flips), and the `n` questions that both sides have a score for;
        `gained` and `lost`: the questions whose exact match flipped, with both answers; none where
        a side has several. A question that either side has no answer for counts in `n` only.

    Raises:
        DataError: The two are not of the same questions.
    """
    pairs = _pair_questions(first, second)
    sides = [([r for r in a if not r.failure], [r for r in b if not r.failure]) for a, b in pairs]
    answered = [pair for pair in sides if all(pair)]
    single = [(a[0], b[0]) for a, b in answered if len(a) == len(b) == 1]
    flips = [(a, b) for a, b in single if a.em != b.em] if len(single) == len(answered) else []
    most = min(max(map(len, side)) for side in zip(*pairs, strict=True)) if pairs else 0
    metrics = {**question_scores(), **pass_scores(most)}
    rows = ((name, _compare_metric(answered, name, score)) for name, score in metrics.items())
    return {
        "n": len(pairs),
        "metrics": {name: row for name, row in rows if row},
        "gained": [_describe_flip(pair) for pair in flips if pair[1].em],
        "lost": [_describe_flip(pair) for pair in flips if pair[0].em],
    }


def pair_results(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> list[Pair]:
    """Return both results of each question, which has one on each side, in the order of `first`.

    Raises:
        DataError: The ids differ, one occurs twice, or a question or its references have changed.
    """
    return [(a, b) for (a,), (b,) in _pair_questions(first, second)]


def _pair_questions(
    first: Sequence[EvalResult], second: Sequence[EvalResult]
) -> Sequence[tuple[Answers, Answers]]:
    """Return both sides' answers to each question, in the order of `first`.

    Raises:
        DataError: As in `pair_results`.
    """
    groups = by_question(first), by_question(second)
    by_id = {answers[0].id: answers for answers in groups[1]}
    ids = {result.id for result in first}
    if ids != by_id.keys():
        strays = sorted(ids ^ by_id.keys())
        raise DataError(
            f"two evaluations of different questions cannot be compared: {len(strays)} ids are in "
            f"only one of them, such as {strays[0]!r}; evaluate both on the same split and limit"
        )
    if not len(ids) == len(groups[0]) == len(groups[1]):
        raise DataError(
            f"an evaluation contains a question twice: {len(ids)} ids for {len(first)} and "
            f"{len(second)} predictions; give every question its own id"
        )
    pairs = [(answers, by_id[answers[0].id]) for answers in groups[0]]
    for (old, *_), (new, *_) in pairs:
        if (old.text, old.references) != (new.text, new.references):
            raise DataError(
                f"question {old.id!r} differs between the two evaluations: {old.text!r} and "
                f"{new.text!r} (or their reference answers differ); evaluate both on the same file"
            )
    return pairs


def _compare_metric(
    pairs: Sequence[tuple[Answers, Answers]], name: str, score: Callable[[Answers], float | None]
) -> dict[str, Any] | None:
    scores = [(score(a), score(b)) for a, b in pairs]
    both = [(a, b) for a, b in scores if a is not None and b is not None]
    if not both:
        return None
    first, second = [a for a, _ in both], [b for _, b in both]
    difference, interval = paired_difference(first, second)
    gains = [b - a for a, b in both]
    # A mean of samples is neither.
    binary = name in BINARY and all(value in (0.0, 1.0) for value in (*first, *second))
    if binary:
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
        "test": "McNemar" if binary else "sign flips",
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
