"""Results as evaluations store them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored_rows import store_evaluation, store_run

from rsearch_cli.evaluation.result import EvalResult


def make_result(id: str, em: float = 1.0, **changes: Any) -> EvalResult:
    fields = {
        "text": f"Question {id}?",
        "references": ("Paris",),
        "answer": "Paris" if em else "Rome",
        "f1": em,
        "plan_valid": 1.0,
        "format_valid": 1.0,
        "searches": 1,
        "completion_tokens": 9,
        "transcript": "<answer> Paris </answer>",
        "seconds": 0.0,
        "usd": 0.0,
    }
    return EvalResult(id=id, em=em, **(fields | changes))


@pytest.fixture
def result() -> Callable[..., EvalResult]:
    """Makes a result; any field may be given."""
    return make_result


@pytest.fixture
def results() -> Callable[..., list[EvalResult]]:
    """Makes a result for each of some exact-match scores."""
    return lambda *scores: [make_result(f"q{i}", score) for i, score in enumerate(scores)]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder of rollouts and predictions, by phase."""
    return lambda rows=None, name="one", **phases: store_run(tmp_path / name, rows, **phases)


@pytest.fixture
def make_evaluation(tmp_path: Path) -> Callable[..., Path]:
    """Makes an evaluation folder."""
    return lambda rows, name="evaluation": store_evaluation(tmp_path / name, rows)
