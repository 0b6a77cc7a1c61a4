"""An observer of a training run that keeps everything it receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Recorder:
    """Keeps the rows of steps and validations, the rollouts, and the names of alarms."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.rollouts: list[Sequence[Mapping[str, Any]]] = []
        self.validations: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self.alarms: list[tuple[int, str, str]] = []

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        self.rows.append(row)
        self.rollouts.append(rollouts)

    def on_validation(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        self.validations.append((row, best))

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        self.alarms.append((step, name, reason))
