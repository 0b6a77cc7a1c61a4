"""The metrics of an evaluation: their names, labels, and how to read them from a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rsearch_cli.evaluation.methods import AGENT
from rsearch_cli.evaluation.result import EvalResult

Metric = Callable[[EvalResult], float | None]

METRICS: dict[str, Metric] = {
    "em": lambda r: r.em,
    "f1": lambda r: r.f1,
    "judge": lambda r: r.judge,
    "title_recall": lambda r: r.title_recall,
    "all_titles": lambda r: None if r.title_recall is None else float(r.title_recall == 1.0),
    "plan_valid": lambda r: r.plan_valid if has_format(r.method) else None,
    "format_valid": lambda r: r.format_valid if has_format(r.method) else None,
}
"""Scores in [0, 1] by name; None where a result has no such score."""

LABELS = {
    "em": "exact match",
    "f1": "F1",
    "judge": "judge",
    "title_recall": "title recall",
    "all_titles": "all titles found",
    "plan_valid": "plan valid",
    "format_valid": "format valid",
}

BINARY = frozenset({"em", "all_titles", "plan_valid", "format_valid"})
"""Metrics that are 0 or 1 for a question; all others are scores in [0, 1]."""

BY_GROUP = ("em", "f1", "judge", "title_recall")
"""Metrics that are also reported by type and level of question."""


def has_format(method: str) -> bool:
    """Whether plan and format apply to a method: only the agent writes them."""
    return method == AGENT


def label_of(metric: str) -> str:
    """Return the name of a metric for people; `pass@4` and `judge_pass@4` are of samples."""
    return LABELS.get(metric) or metric.replace("judge_", "judge, ")


def scores(results: Sequence[EvalResult], metric: str) -> list[float]:
    """Return the scores of those results that have one."""
    found = (METRICS[metric](result) for result in results)
    return [score for score in found if score is not None]


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None
