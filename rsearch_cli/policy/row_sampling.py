"""Own sampling settings for each row of a batch; transformers has one set for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsearch_cli.policy.generation import Sampling


class RowSampling:
    """Prepares scores so that drawing from them samples each row by its own settings.

    A greedy row keeps its best token only. It is a logits processor of transformers.

    Args:
        rows: `[B]` settings.
    """

    def __init__(self, rows: Sequence[Sampling]) -> None:
        self._greedy = [[row.temperature <= 0] for row in rows]
        self._temperature = [[row.temperature if row.temperature > 0 else 1.0] for row in rows]
        self._top_p = [[row.top_p] for row in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the `[B, V]` scores to draw from."""
        import torch

        def column(values: list[list[Any]]) -> Any:
            return torch.tensor(values, device=scores.device)

        best = torch.full_like(scores, -torch.inf)
        best.scatter_(1, scores.argmax(dim=-1, keepdim=True), 0.0)
        warm = scores / column(self._temperature)
        if any(top_p < 1 for (top_p,) in self._top_p):
            ordered, order = warm.sort(dim=-1)
            outside = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - column(self._top_p)
            outside[:, -1] = False
            outside = torch.zeros_like(outside).scatter_(1, order, outside)
            warm = warm.masked_fill(outside, -torch.inf)
        return torch.where(column(self._greedy), best, warm)
