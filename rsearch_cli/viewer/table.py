"""The columns of a source: rows are added one by one, texts are stored once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rsearch_cli.viewer.schema import CODED, PLAIN, TRAIN, Rows

_EPSILON = 1e-4
"""Added to the deviation by TRL's `GRPOTrainer`."""


class Table:
    """Rows as columns.

    Args:
        group_size: Rollouts of a group; None where the recipe does not say.
    """

    def __init__(self, group_size: int | None = None) -> None:
        self.count = 0
        self._group_size = group_size
        self._columns: dict[str, list[Any]] = {name: [] for name in (*CODED, *PLAIN)}
        self._codes: dict[str, dict[str, int]] = {name: {} for name in CODED}
        self._last: tuple[Any, Any] | None = None
        self._group, self._in_group = -1, 0

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a row; columns that it lacks are null."""
        for name, column in self._columns.items():
            value = values.get(name)
            if name in self._codes and value is not None:
                codes = self._codes[name]
                value = codes.setdefault(value, len(codes))
            column.append(value)
        if values["phase"] == TRAIN:
            self._columns["group"][-1] = self._next_group((values["step"], values["id"]))
        self.count += 1

    def _next_group(self, key: tuple[Any, Any]) -> int:
        """Return the group of a rollout: neighbours of one step and question, `group_size` long."""
        if key != self._last or self._in_group == self._group_size:
            self._last, self._in_group = key, 0
            self._group += 1
        self._in_group += 1
        return self._group

    def fill_advantages(self, scale: str) -> None:
        """Compute the advantages of all rollouts anew.

        Args:
            scale: `train.scale_rewards` of the recipe.
        """
        columns = self._columns
        advantages: list[float | None] = columns["advantage"]
        for step in _runs(columns["step"]):
            for rows in _runs(columns["group"], step):
                if columns["group"][rows[0]] is None:
                    continue
                whole = rows if scale == "group" else step
                rewards = [columns["reward"][row] for row in whole]
                deviation = 1.0 if scale == "none" else _deviation(rewards) + _EPSILON
                values = group_advantages([columns["reward"][row] for row in rows], deviation)
                for row, value in zip(rows, values, strict=True):
                    advantages[row] = value

    def as_rows(self) -> Rows:
        """Return the columns and dictionaries as they are now."""
        return {
            "count": self.count,
            "columns": self._columns,
            "dictionaries": {name: list(codes) for name, codes in self._codes.items()},
        }


def group_advantages(rewards: Sequence[float | None], deviation: float) -> list[float]:
    """Return the advantages of a group: reward minus the group's mean, divided by a deviation.

    An unscored rollout does not count in the mean and has the advantage 0, as in TRL.
    """
    known = [reward for reward in rewards if reward is not None]
    if not known or math.isnan(deviation):
        return [0.0] * len(rewards)
    middle = fmean(known)
    return [0.0 if r is None else round((r - middle) / deviation, 6) for r in rewards]


def describe_advantages(scale: str, stored: bool) -> str:
    """Return in words how advantages are computed.

    Args:
        scale: `train.scale_rewards`.
        stored: Whether the recipe of the run says so.
    """
    divisor = {
        "group": ", divided by the standard deviation of its group + 0.0001",
        "batch": ", divided by the standard deviation of its step + 0.0001",
    }.get(scale, "")
    source = f"scale_rewards: {scale}" if stored else f"no recipe: scale_rewards taken as {scale}"
    return f"computed: reward minus the mean of its group{divisor} ({source})"


def _deviation(rewards: Sequence[float | None]) -> float:
    """Return the sample standard deviation of the scored rollouts; NaN for fewer than two."""
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2:
        return math.nan
    middle = fmean(known)
    return math.sqrt(sum((reward - middle) ** 2 for reward in known) / (len(known) - 1))


def _runs(values: Sequence[Any], within: range | None = None) -> Iterator[range]:
    """Yield the ranges of neighbours with one value."""
    within = range(len(values)) if within is None else within
    start = within.start
    for row in within:
        if values[row] != values[start]:
            yield range(start, row)
            start = row
    if within.stop > start:
        yield range(start, within.stop)
