"""From stored rows to the figures of a method, each mean with its 95 % interval.

Place in the path: takes the rows of one method, gives its block of `results.json`. On failure: no
rows raise `DataEmpty`. A mean over nothing is None; rows without an answer of the policy's server
are counted in `failed_answers` and left out of everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluation.intervals import mean_interval
from rsearch_cli.evaluation.metrics import describe_intervals
from rsearch_cli.evaluation.result import EvalResult, has_format

Value = Callable[[EvalResult], float | None]

METRICS: dict[str, Value] = {
    "em": lambda r: r.prediction.em,
    "f1": lambda r: r.prediction.f1,
    "judge": lambda r: r.judge,
    "title_recall": lambda r: r.title_recall,
    "plan_valid": lambda r: r.prediction.plan_valid if has_format(r.method) else None,
    "format_valid": lambda r: r.prediction.format_valid if has_format(r.method) else None,
}
"""Scores in [0, 1], by name; None where a row has none."""

LABELS = {
    "em": "exact match",
    "f1": "F1",
    "judge": "judge",
    "title_recall": "title recall",
    "plan_valid": "plan valid",
    "format_valid": "format valid",
}

GROUPED = ("em", "f1", "judge", "title_recall")
"""What is told of each type and level."""


_NO_LATENCY = {"p50": None, "p95": None}


def summarise_method(
    records: Sequence[EvalResult], batch_size: int | None = None
) -> dict[str, Any]:
    """The figures of one method.

    Args:
        records: Its rows, in the order of asking.
        batch_size: Questions that local weights answered at once: the time of a row is then that
            of its batch. None where every row has a time of its own.

    Returns:
        `n` questions asked, `failed_answers`, `searches`, `failed_searches`, `unscored`; the mean
        of each of `METRICS` (or None), over how many rows (`scored`), `intervals` and their
        `interval_methods`;
        `searches_per_question` and `tokens_per_question` (written by the policy); `by_type` and
        `by_level`; `usd`; `latency_seconds` (`p50`, `p95`) of single questions, null for batches,
        which have `seconds_per_question`, their time divided by their questions.

    Raises:
        DataEmpty: There is no row.
    """
    if not records:
        raise DataEmpty("nothing to summarise: 0 questions were evaluated; raise --limit")
    answered = [record for record in records if record.failure is None]
    predictions = [record.prediction for record in answered]
    return {
        "n": len(records),
        "failed_answers": len(records) - len(answered),
        "searches": sum(p.searches for p in predictions),
        "failed_searches": sum(p.failed_searches for p in predictions),
        "unscored": sum(record.unscored for record in answered),
        **_means(answered, METRICS),
        "searches_per_question": mean([float(p.searches) for p in predictions]),
        "tokens_per_question": mean([float(p.completion_tokens) for p in predictions]),
        "by_type": _by(answered, lambda record: record.prediction.type),
        "by_level": _by(answered, lambda record: record.prediction.level),
        **_times(records, answered, batch_size),
        "usd": round(sum(record.usd for record in records), 6),
    }


def values_of(records: Sequence[EvalResult], metric: str) -> list[float]:
    """The scores of those rows that have one."""
    found = (METRICS[metric](record) for record in records)
    return [value for value in found if value is not None]


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None


def _means(
    records: Sequence[EvalResult], names: Sequence[str] | dict[str, Value]
) -> dict[str, Any]:
    columns = {name: values_of(records, name) for name in names}
    return {
        **{name: mean(values) for name, values in columns.items()},
        "scored": {name: len(values) for name, values in columns.items()},
        **describe_intervals({n: mean_interval(values) for n, values in columns.items() if values}),
    }


def _by(records: Sequence[EvalResult], key: Callable[[EvalResult], str]) -> dict[str, Any]:
    groups: dict[str, list[EvalResult]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {
        name: {"n": len(group), **_means(group, GROUPED)}
        for name, group in sorted(groups.items())
        if name
    }


def _times(
    records: Sequence[EvalResult], answered: Sequence[EvalResult], batch_size: int | None
) -> dict[str, Any]:
    if (batch_size or 1) > 1:
        batches = [record.seconds for record in records[::batch_size]]
        per_question = round(sum(batches) / len(records), 3)
        return {"latency_seconds": _NO_LATENCY, "seconds_per_question": per_question}
    if not answered:
        return {"latency_seconds": _NO_LATENCY, "seconds_per_question": None}
    import numpy as np

    p50, p95 = np.quantile(np.asarray([record.seconds for record in answered]), [0.5, 0.95])
    latency = {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}
    return {"latency_seconds": latency, "seconds_per_question": None}
