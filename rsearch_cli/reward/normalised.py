"""What the trainer receives as rewards: the totals, or sums of parts normalised one by one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.composite import earned_answer, weights_at
from rsearch_cli.types import RewardParts

EPSILON = 1e-4
"""Added to a deviation before dividing by it, as TRL does."""


def training_rewards(parts: Sequence[RewardParts], recipe: Recipe, step: int) -> list[float | None]:
    """Return the rewards of a step, from which the trainer computes advantages.

    With `reward.normalise_parts`, each part is normalised within its group before it is weighted:
    the sum over the parts k of w_k (r_k - mean_k) / (std_k + 0.0001), as in GDPO (arXiv
    2601.05242), which then divides by the deviation of the step (`train.scale_rewards: batch`).

    Args:
        parts: `[B*G]` rewards; the rollouts of a question follow each other.
        recipe: Its reward section, and the size of a group.
        step: Optimiser steps finished before this one.

    Returns:
        `[B*G]` rewards, None for an unscored rollout.
    """
    if not recipe.reward.normalise_parts:
        return [part.total for part in parts]
    size = recipe.train.num_generations
    rewards: list[float | None] = []
    for start in range(0, len(parts), size):
        rewards += _normalised(parts[start : start + size], recipe, step)
    return rewards


def _normalised(group: Sequence[RewardParts], recipe: Recipe, step: int) -> list[float | None]:
    """Return the weighted sums of the normalised parts of one group."""
    weights, gate = weights_at(step, recipe.reward), recipe.reward.require_valid_plan
    scored = [part for part in group if part.total is not None]
    columns = [
        (weights.answer, [earned_answer(p.answer or 0.0, p.plan, gate) for p in scored]),
        (weights.plan, [p.plan for p in scored]),
        (weights.format, [p.format for p in scored]),
    ]
    for name, weight in recipe.reward.extra.items():
        columns.append((weight, [p.extra.get(name) or 0.0 for p in scored]))
    sums = [0.0] * len(scored)
    for weight, column in columns:
        for row, value in enumerate(_standardise(column)):
            sums[row] += weight * value
    found = iter(sums)
    return [None if part.total is None else next(found) for part in group]


def _standardise(values: Sequence[float]) -> list[float]:
    """Return the values less their mean, divided by their sample deviation."""
    if len(values) < 2:
        return [0.0] * len(values)
    middle, deviation = fmean(values), stdev(values)
    return [(value - middle) / (deviation + EPSILON) for value in values]
