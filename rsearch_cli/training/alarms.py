"""Alarms: the signs by which a run shows that its policy collapses.

Place in the path: after the ledger, whose rows it reads; training marks the step's row with the
alarms that stand, tells of new ones and, if the recipe asks for it, ends the run. On failure: it
has none; a figure that was not measured raises no alarm.

A rate is held against a fixed limit where it means the same for every model (truncation,
repetition), and against the run's own first or best steps where it does not (entropy, length,
format).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.terminal import finite

# One bad step is not a collapse, however many completions it has.
_LEAST_STEPS = 3
# A smaller fall of the format rate is often chance where a step has four completions.
_LEAST_FALL = 0.2
# A policy that earns nearly all there is may be sure of itself, and its groups have to be alike.
_SOLVED = 0.9
_ALL_RIGHT_WHEN_SOLVED = ("entropy_low", "zero_advantage")
# Nats a token. Below, a policy is nearly certain of each word, however much its entropy has risen.
_LEAST_NOISE = 0.5

# Name of a limit: the figure in the metrics row, and how it reads in a line.
_FALLS = {
    "entropy_low": ("entropy", "token entropy"),
    "length_low": ("completion_length", "tokens a completion"),
}
_SHARES = {
    "truncated": ("truncated", "of completions ran out of tokens"),
    "zero_advantage": ("groups/zero_advantage", "of groups earn the same throughout"),
    "repeated_tags": ("repeated/tags", "of tags are repeated"),
    "repeated_ngrams": ("repeated/ngrams", "of 4-grams in <think> are repeated"),
}

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sign of a collapse: the name of its limit in the recipe, and what was seen, in words."""

    name: str
    line: str


class CollapseWatch:
    """Watches a run step by step.

    Args:
        limits: The recipe's `alarms` section.
        rollouts: Completions of one step.
        rows: Metrics rows of the steps before a resume; alarms that stood then are not new.
    """

    def __init__(self, limits: AlarmsConfig, rollouts: int, rows: Iterable[Row] = ()) -> None:
        self._limits = limits
        self._window = max(_LEAST_STEPS, -(-limits.window // rollouts))
        self._rows = list(rows)
        self._standing = _names(self._rows[-1]) if self._rows else set()

    def check(self, row: dict[str, Any]) -> list[Alarm]:
        """Put the alarms that stand into the row of a new step, as `alarms`; return new ones."""
        self._rows.append(row)
        alarms = find_alarms(self._rows, self._limits, self._window)
        before, self._standing = self._standing, {alarm.name for alarm in alarms}
        row["alarms"] = [alarm.name for alarm in alarms]
        return [alarm for alarm in alarms if alarm.name not in before]


def find_alarms(rows: Sequence[Row], limits: AlarmsConfig, window: int) -> list[Alarm]:
    """The alarms that stand after the last of a run's steps.

    Args:
        rows: Metrics rows of all steps so far.
        limits: The recipe's `alarms` section.
        window: Steps that are averaged; before they are done there is no alarm.
    """
    if len(rows) < window:
        return []
    now, first = rows[-window:], rows[:window]
    found = {name: _fell(name, now, first, limits) for name in _FALLS}
    found |= {name: _passed(name, now, limits) for name in _SHARES}
    found["entropy_high"] = _exploded(now, first, limits.entropy_high)
    found["format_low"] = _lost_format(rows, window, limits.format_low)
    if (_mean(now, "reward") or 0.0) >= _SOLVED:
        found |= dict.fromkeys(_ALL_RIGHT_WHEN_SOLVED)
    return [Alarm(name, line) for name, line in found.items() if line is not None]


def first_alarms(rows: Iterable[Row]) -> dict[str, int]:
    """Each alarm that a run's metrics rows hold, to the first step at which it stood."""
    first: dict[str, int] = {}
    for row in rows:
        for name in sorted(_names(row)):
            first.setdefault(name, int(finite(row, "step") or 0))
    return first


def _fell(name: str, now: Sequence[Row], first: Sequence[Row], limits: AlarmsConfig) -> str | None:
    key, what = _FALLS[name]
    share, value, start = getattr(limits, name), _mean(now, key), _mean(first, key)
    if share is None or value is None or start is None or value >= share * start:
        return None
    return f"{what} {value:.3g}, under {share:g} times the first steps' {start:.3g}"


def _exploded(now: Sequence[Row], first: Sequence[Row], times: float | None) -> str | None:
    value, start = _mean(now, "entropy"), _mean(first, "entropy")
    if times is None or value is None or start is None:
        return None
    if value <= max(times * start, _LEAST_NOISE):
        return None
    return f"token entropy {value:.3g}, over {times:g} times the first steps' {start:.3g}"


def _passed(name: str, now: Sequence[Row], limits: AlarmsConfig) -> str | None:
    key, what = _SHARES[name]
    limit, value = getattr(limits, name), _mean(now, key)
    if limit is None or value is None or value <= limit:
        return None
    return f"{value:.0%} {what}, over {limit:.0%}"


def _lost_format(rows: Sequence[Row], window: int, share: float | None) -> str | None:
    """Held against the best steps: a run that starts badly and learns can still collapse."""
    values = [v for row in rows if (v := finite(row, "format_valid")) is not None]
    if share is None or len(values) < window:
        return None
    sums = [0.0, *accumulate(values)]
    means = [(b - a) / window for a, b in zip(sums, sums[window:], strict=False)]
    now, best = means[-1], max(means)
    if now >= share * best or best - now < _LEAST_FALL:
        return None
    return f"{now:.0%} of completions in valid format, under {share:g} times the best {best:.0%}"


def _mean(rows: Sequence[Row], key: str) -> float | None:
    known = [value for row in rows if (value := finite(row, key)) is not None]
    return fmean(known) if known else None


def _names(row: Row) -> set[str]:
    names = row.get("alarms")
    return set(names) if isinstance(names, list) else set()
