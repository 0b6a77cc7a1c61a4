"""Further reward parts, those in `reward.extra`: ours, and those of other packages.

A new part is one module and one line in `PARTS` or, in another package, one entry point. A penalty
of ours is also in `PENALTIES` of `recipe/training.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from rsearch_cli.errors import RecipeValueError, RsearchError, ServiceFailure
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import RewardConfig
from rsearch_cli.types import Trajectory

PARTS: Mapping[str, str] = {
    "economy": "rsearch_cli.reward.economy:economy",
    "length": "rsearch_cli.reward.length:length",
    "no_answer": "rsearch_cli.reward.no_answer:no_answer",
    "retrieval": "rsearch_cli.reward.retrieval:retrieval",
}
"""Name of a part to its function, a `RewardPart`."""

GROUP = "rsearch.rewards"
"""Group of the entry points by which other packages add parts, in the same form."""


class RewardPart(Protocol):
    """Scores one finished rollout."""

    def __call__(self, trajectory: Trajectory, recipe: Recipe) -> float | None:
        """Return the score: from 0 to 1, or from -1 to 0 for a penalty.

        None means that the part does not apply to the question; it then adds nothing.

        Raises:
            ServiceFailure: The score could not be obtained; the rollout is unscored.
        """
        ...


def find_parts(recipe: RewardConfig) -> dict[str, RewardPart]:
    """Return the functions of the parts in `reward.extra`, by name.

    Raises:
        RecipeValueError: There is no such part, or it cannot be loaded.
    """
    return {name: _load(name) for name in recipe.extra}


def score_parts(
    parts: Mapping[str, RewardPart], trajectory: Trajectory, recipe: Recipe
) -> tuple[dict[str, float | None], str | None]:
    """Score a trajectory with every part.

    Returns:
        The scores of those that apply, None for one that could not be obtained; and the reason for
        the last None, in one line.

    Raises:
        RsearchError: A part returned something else than a score.
    """
    scores: dict[str, float | None] = {}
    reason = None
    for name, part in parts.items():
        try:
            score = part(trajectory, recipe)
        except ServiceFailure as failure:
            scores[name] = None
            reason = " ".join(f"{name}: {failure}".split())
            continue
        if score is None:
            continue
        if not isinstance(score, int | float) or math.isnan(score) or not -1.0 <= score <= 1.0:
            raise RsearchError(
                f"the reward part {name!r} returned {score!r}; it must return a number from -1 to "
                "1, or None where it does not apply"
            )
        scores[name] = float(score)
    return scores, reason


def _load(name: str) -> RewardPart:
    if name in PARTS:  # ours cannot be replaced, so a recipe means the same everywhere
        point = EntryPoint(name, PARTS[name], GROUP)
    else:
        added = {point.name: point for point in entry_points(group=GROUP)}
        if name not in added:
            known = sorted({*PARTS, *added})
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"available: {', '.join(known)}"
            raise RecipeValueError(f"reward.extra: there is no reward part {name!r}; {hint}")
        point = added[name]
    try:
        part: RewardPart = point.load()
    except (ImportError, AttributeError) as error:
        package = f" of the package {point.dist.name}" if point.dist else ""
        raise RecipeValueError(
            f"reward.extra: the part {name!r}{package} cannot be loaded from {point.value} "
            f"({error})"
        ) from error
    return part
