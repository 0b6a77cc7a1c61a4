"""What a training run reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Observer(Protocol):
    """Receives the events of a training run, such as a progress display or a tracker."""

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Receive a finished step.

        Args:
            row: The step's row of `metrics.jsonl`.
            rollouts: `[B*G]` its rows of `trajectories.jsonl`; empty in a supervised run.
        """
        ...

    def on_validation(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Receive a validation and the best one so far, both rows of `validation.jsonl`."""
        ...

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        """Receive a new alarm: its name in the recipe and the figure that raised it."""
        ...
