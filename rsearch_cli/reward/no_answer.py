"""Reward part `no_answer`: a penalty for a completion without an answer."""

from __future__ import annotations

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Trajectory


def no_answer(trajectory: Trajectory, recipe: Recipe) -> float:
    """Return -1 if there is no `<answer>` block or an empty one, else 0."""
    return 0.0 if trajectory.answer and trajectory.answer.strip() else -1.0
