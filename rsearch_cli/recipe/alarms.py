"""The `alarms` section of a recipe: when a policy counts as collapsed."""

from __future__ import annotations

from pydantic import Field

from rsearch_cli.recipe.base import BaseConfig


class AlarmsConfig(BaseConfig):
    """Signs of a collapse during training; null disables an alarm.

    Each alarm compares the mean of the last steps: as many steps as contain `window` completions,
    at least three. Shares are in [0, 1].
    """

    window: int = Field(64, ge=1, le=100000)
    """Completions to average, in whole steps; the first ones of the run are the baseline."""
    entropy_low: float | None = Field(0.1, gt=0.0, lt=1.0)
    """Token entropy below this share of the baseline, unless the reward is 90 % of the highest
    possible."""
    entropy_high: float | None = Field(3.0, gt=1.0, le=1000.0)
    """Token entropy above this multiple of the baseline, and above 0.5 nats."""
    length_low: float | None = Field(0.2, gt=0.0, lt=1.0)
    """Tokens per completion below this share of the baseline."""
    truncated: float | None = Field(0.9, gt=0.0, lt=1.0)
    """Share of completions that reached the token limit, above this."""
    format_low: float | None = Field(0.25, gt=0.0, lt=1.0)
    """Share of completions in valid format, below this share of its maximum so far."""
    zero_advantage: float | None = Field(0.95, gt=0.0, lt=1.0)
    """Share of groups with equal rewards, above this, unless the reward is 90 % of the highest
    possible."""
    repeated_tags: float | None = Field(0.25, gt=0.0, lt=1.0)
    """Share of tags repeated within a turn, above this."""
    repeated_ngrams: float | None = Field(0.5, gt=0.0, lt=1.0)
    """Share of repeated word 4-grams in <think>, above this."""
    stop_on_collapse: bool = False
    """Save and stop the run at the first alarm; --resume continues regardless."""
