"""Figures of a list of results: means with 95 % intervals, counts, costs and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rsearch_cli.errors import DataEmpty
from rsearch_cli.evaluation.intervals import Interval, mean_interval
from rsearch_cli.evaluation.metrics import BY_GROUP, mean
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.samples import Scores, by_question, pass_scores, question_scores

_NO_LATENCY = {"p50": None, "p95": None}


def summarise(results: Sequence[EvalResult], batch_size: int | None = None) -> dict[str, Any]:
    """Summarise the results of one method.

    Args:
        results: Its results, in the order of asking.
        batch_size: Questions that local weights answered at once; the time of a result is then that
            of its batch. None if every result has its own time.

    Returns:
        `n` questions, `samples` of each (only of sampled answers), `failed_answers`, `searches`,
        `failed_searches`, `failed_reads` (pages), `unscored` (answers without the verdict that was
        requested); the mean over questions of each of `METRICS` (or None) and, of samples, of
        `samples.pass_scores`, the number of questions it is over (`scored`), `intervals` (metric to
        `[low, high]`, 95 %) and their `interval_methods`; `searches_per_question` and
        `tokens_per_question` (written by the policy), both per answer; `by_type` and `by_level`;
        `usd`; `latency_seconds` (`p50`, `p95`) per answer, or for batches `seconds_per_question`,
        their time divided by their answers.

    Raises:
        DataEmpty: There is no result.
    """
    if not results:
        raise DataEmpty("nothing to summarise: 0 questions were evaluated; raise --limit")
    answered = [result for result in results if result.failure is None]
    samples = max((result.sample + 1 for result in results if result.sample is not None), default=0)
    costs = [result.usd for result in results if result.usd is not None]
    return {
        "n": len(by_question(results)),
        **({"samples": samples} if samples else {}),
        "failed_answers": len(results) - len(answered),
        "searches": sum(result.searches for result in answered),
        "failed_searches": sum(result.failed_searches for result in answered),
        "failed_reads": sum(result.failed_reads for result in answered),
        "unscored": sum(result.unscored for result in answered),
        **_means(answered, {**question_scores(), **pass_scores(samples)}),
        "searches_per_question": mean([float(result.searches) for result in answered]),
        "tokens_per_question": mean([float(result.completion_tokens) for result in answered]),
        "by_type": _by_group(answered, lambda result: result.type),
        "by_level": _by_group(answered, lambda result: result.level),
        **_times(results, answered, batch_size),
        "usd": round(sum(costs), 6) if costs else None,
    }


def _means(results: Sequence[EvalResult], metrics: Scores) -> dict[str, Any]:
    questions = by_question(results)
    columns = {
        name: [value for answers in questions if (value := score(answers)) is not None]
        for name, score in metrics.items()
    }
    intervals = {metric: mean_interval(values) for metric, values in columns.items() if values}
    return {
        **{metric: mean(values) for metric, values in columns.items()},
        "scored": {metric: len(values) for metric, values in columns.items()},
        **_describe_intervals(intervals),
    }


def _describe_intervals(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "intervals": {metric: [i.low, i.high] for metric, i in intervals.items()},
        "interval_methods": {metric: i.method for metric, i in intervals.items()},
    }


def _by_group(results: Sequence[EvalResult], key: Callable[[EvalResult], str]) -> dict[str, Any]:
    groups: dict[str, list[EvalResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return {
        name: {"n": len(by_question(group)), **_means(group, question_scores(BY_GROUP))}
        for name, group in sorted(groups.items())
        if name
    }


def _first_of_batches(results: Sequence[EvalResult], batch_size: int) -> list[EvalResult]:
    """Return the first result of each batch; no batch has two samples of a question."""
    by_sample: dict[int | None, list[EvalResult]] = {}
    for result in results:
        by_sample.setdefault(result.sample, []).append(result)
    return [result for rows in by_sample.values() for result in rows[::batch_size]]


def _times(
    results: Sequence[EvalResult], answered: Sequence[EvalResult], batch_size: int | None
) -> dict[str, Any]:
    in_batches = (batch_size or 1) > 1
    timed = _first_of_batches(results, batch_size) if batch_size and in_batches else answered
    seconds = [result.seconds for result in timed if result.seconds is not None]
    if in_batches or not seconds:
        per_question = round(sum(seconds) / len(results), 3) if seconds else None
        return {"latency_seconds": _NO_LATENCY, "seconds_per_question": per_question}
    import numpy as np

    p50, p95 = np.quantile(np.asarray(seconds), [0.5, 0.95])
    latency = {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}
    return {"latency_seconds": latency, "seconds_per_question": None}
