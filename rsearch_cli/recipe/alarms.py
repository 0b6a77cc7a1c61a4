"""The section of a recipe that says when a policy counts as collapsed.

Place in the path: a part of the schema, read by `train.alarms`. On failure: as in `section`.
"""

from __future__ import annotations

from pydantic import Field

from rsearch_cli.recipe.base import BaseConfig


class AlarmsConfig(BaseConfig):
    """When training calls out that the policy collapses; null switches an alarm off.

    Each alarm is about the mean of the last steps, as many as hold `window` completions but at
    least three. Shares are in [0, 1].
    """

    window: int = Field(
        64,
        ge=1,
        le=100000,
        description="Completions that are averaged, in whole steps; the run's first ones are what "
        "later ones are compared with.",
    )
    entropy_low: float | None = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="Token entropy under this share of the first steps', unless the reward is 0.9.",
    )
    entropy_high: float | None = Field(
        3.0,
        gt=1.0,
        le=1000.0,
        description="Token entropy over this many times the first steps', and over 0.5 nats.",
    )
    length_low: float | None = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="Tokens a completion under this share of the first steps'.",
    )
    truncated: float | None = Field(
        0.9, gt=0.0, lt=1.0, description="Share of completions that ran out of tokens, over this."
    )
    format_low: float | None = Field(
        0.25,
        gt=0.0,
        lt=1.0,
        description="Share of completions in valid format, under this share of its best so far.",
    )
    zero_advantage: float | None = Field(
        0.95,
        gt=0.0,
        lt=1.0,
        description="Share of groups that all earn the same, over this, unless the reward is 0.9.",
    )
    repeated_tags: float | None = Field(
        0.25,
        gt=0.0,
        lt=1.0,
        description="Share of tags that were already written in the same turn, over this.",
    )
    repeated_ngrams: float | None = Field(
        0.5,
        gt=0.0,
        lt=1.0,
        description="Share of 4-grams of words in <think> that had come before, over this.",
    )
    stop_on_collapse: bool = Field(
        False,
        description="Save and end the run at the first alarm; --resume goes on regardless.",
    )
