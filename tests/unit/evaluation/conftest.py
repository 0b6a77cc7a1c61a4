"""Rows as evaluations store them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rsearch_cli.evaluation.metrics import Prediction
from rsearch_cli.evaluation.result import EvalResult


@pytest.fixture
def record() -> Callable[..., EvalResult]:
    """Makes a row; `prediction` fields may be given beside the row's own."""

    def make(id: str, em: float = 1.0, method: str = "rsearch", **changes: object) -> EvalResult:
        own = {n: changes.pop(n) for n in list(changes) if n in EvalResult.__dataclass_fields__}
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
        }
        prediction = Prediction(id=id, em=em, **(fields | changes))
        return EvalResult(method, prediction, **own)

    return make
