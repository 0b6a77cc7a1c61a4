"""Alarms: signs in the metrics that the policy is collapsing.

A rate is compared with a fixed limit if it means the same for every model (truncation, repetition),
and with the run's own first or best steps if it does not (entropy, length, format).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from rsearch_cli.recipe.alarms import AlarmsConfig
from rsearch_cli.recipe.training import highest_reward
from rsearch_cli.terminal import finite

# A single bad step is not a collapse, however many completions it has.
_LEAST_STEPS = 3
# With four completions a step, a smaller drop of the format rate is often chance.
_LEAST_DROP = 0.2
# Near the highest reward, a policy is rightly certain, and its groups have equal rewards.
_SOLVED = 0.9
_IGNORED_WHEN_SOLVED = ("entropy_low", "zero_advantage")
# Nats per token; below it a policy is nearly certain of each word, however much entropy has risen.
_LEAST_NOISE = 0.5

# Name of a limit: the key in the metrics row, and its name in a message.
_DROPS = {
    "entropy_low": ("entropy", "token entropy"),
    "length_low": ("completion_length", "tokens per completion"),
}
_SHARES = {
    "truncated": ("truncated", "of completions ran out of tokens"),
    "zero_advantage": ("groups/zero_advantage", "of groups have equal rewards"),
    "repeated_tags": ("repeated/tags", "of tags are repeated"),
    "repeated_ngrams": ("repeated/ngrams", "of 4-grams in <think> are repeated"),
}

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One sign of a collapse: the name of its limit in the recipe, and the figures as text."""

    name: str
    line: str


class CollapseWatch:
    """Checks a run for a collapse step by step.

    Args:
        limits: The recipe's `alarms` section.
        extra: The recipe's `reward.extra`.
        rollouts: Completions per step.
        rows: Metrics rows of the steps before a resume; alarms active in the last are not new.
    """

    def __init__(
        self,
        limits: AlarmsConfig,
        extra: Mapping[str, float],
        rollouts: int,
        rows: Iterable[Row] = (),
    ) -> None:
        self._limits, self._extra = limits, extra
        self._window = max(_LEAST_STEPS, -(-limits.window // rollouts))
        self._rows = list(rows)
        self._active = _names(self._rows[-1]) if self._rows else set()

    def check(self, row: dict[str, Any]) -> list[Alarm]:
        """Store the active alarms in the row of a new step as `alarms`; return the new ones."""
        self._rows.append(row)
        alarms = find_alarms(self._rows, self._limits, self._extra, self._window)
        before, self._active = self._active, {alarm.name for alarm in alarms}
        row["alarms"] = [alarm.name for alarm in alarms]
        return [alarm for alarm in alarms if alarm.name not in before]


def find_alarms(
    rows: Sequence[Row], limits: AlarmsConfig, extra: Mapping[str, float], window: int
) -> list[Alarm]:
    """Return the alarms that are active after the last step.

    Args:
        rows: Metrics rows of all steps so far.
        limits: The recipe's `alarms` section.
        extra: The recipe's `reward.extra`.
        window: Number of steps to average; with fewer steps there is no alarm.
    """
    if len(rows) < window:
        return []
    now, first = rows[-window:], rows[:window]
    found = {name: _dropped(name, now, first, limits) for name in _DROPS}
    found |= {name: _exceeded(name, now, limits) for name in _SHARES}
    found["entropy_high"] = _rose(now, first, limits.entropy_high)
    found["format_low"] = _format_dropped(rows, window, limits.format_low)
    if _is_solved(now, extra):
        found |= dict.fromkeys(_IGNORED_WHEN_SOLVED)
    return [Alarm(name, line) for name, line in found.items() if line is not None]


def first_alarms(rows: Iterable[Row]) -> dict[str, int]:
    """Map each alarm in the metrics rows of a run to the first step at which it was active."""
    first: dict[str, int] = {}
    for row in rows:
        for name in sorted(_names(row)):
            first.setdefault(name, int(finite(row, "step") or 0))
    return first


def _is_solved(now: Sequence[Row], extra: Mapping[str, float]) -> bool:
    # A part that applies to no question of these steps cannot be earned.
    parts = {name: extra[name] for name in extra if _mean(now, f"reward/{name}") is not None}
    return (_mean(now, "reward") or 0.0) >= _SOLVED * highest_reward(parts)


def _dropped(
    name: str, now: Sequence[Row], first: Sequence[Row], limits: AlarmsConfig
) -> str | None:
    key, what = _DROPS[name]
    share, value, start = getattr(limits, name), _mean(now, key), _mean(first, key)
    if share is None or value is None or start is None or value >= share * start:
        return None
    return f"{what} {value:.3g}, below {share:g} times the {start:.3g} of the first steps"


def _rose(now: Sequence[Row], first: Sequence[Row], times: float | None) -> str | None:
    value, start = _mean(now, "entropy"), _mean(first, "entropy")
    if times is None or value is None or start is None:
        return None
    if value <= max(times * start, _LEAST_NOISE):
        return None
    return f"token entropy {value:.3g}, above {times:g} times the {start:.3g} of the first steps"


def _exceeded(name: str, now: Sequence[Row], limits: AlarmsConfig) -> str | None:
    key, what = _SHARES[name]
    limit, value = getattr(limits, name), _mean(now, key)
    if limit is None or value is None or value <= limit:
        return None
    return f"{value:.0%} {what}, above {limit:.0%}"


def _format_dropped(rows: Sequence[Row], window: int, share: float | None) -> str | None:
    """Compare with the best steps: a run that starts badly and learns can still collapse."""
    values = [v for row in rows if (v := finite(row, "format_valid")) is not None]
    if share is None or len(values) < window:
        return None
    sums = [0.0, *accumulate(values)]
    means = [(b - a) / window for a, b in zip(sums, sums[window:], strict=False)]
    now, best = means[-1], max(means)
    if now >= share * best or best - now < _LEAST_DROP:
        return None
    return f"{now:.0%} of completions in valid format, below {share:g} times the best {best:.0%}"


def _mean(rows: Sequence[Row], key: str) -> float | None:
    known = [value for row in rows if (value := finite(row, key)) is not None]
    return fmean(known) if known else None


def _names(row: Row) -> set[str]:
    names = row.get("alarms")
    return set(names) if isinstance(names, list) else set()
