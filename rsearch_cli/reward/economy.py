"""Reward part `economy`: fewer searches earn more, for sources that are paid for."""

from __future__ import annotations

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Trajectory


def economy(trajectory: Trajectory, recipe: Recipe) -> float:
    """Return 1 for at most one search, 1/2 for two, 1/3 for three, and so on."""
    return 1.0 / max(1, sum(len(round_.results) for round_ in trajectory.rounds))
