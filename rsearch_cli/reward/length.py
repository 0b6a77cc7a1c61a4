"""Reward part `length`: DAPO's soft penalty for completions near the token limit."""

from __future__ import annotations

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Trajectory

CACHE_SHARE = 0.2
"""Share of the limit within which the penalty grows: 4,096 of 20,480 tokens in DAPO."""


def length(trajectory: Trajectory, recipe: Recipe) -> float:
    """Return the "soft overlong punishment" of DAPO (arXiv 2503.14476), in [-1, 0].

    With L_max = `rollout.max_new_tokens`, L_cache = L_max / 5 and y the tokens that the policy
    wrote: 0 up to L_max - L_cache, then ((L_max - L_cache) - y) / L_cache, which is -1 at L_max.
    Tokens of inserted results do not count, as in the limit. A completion that ran out of tokens
    earlier, because its context was full, gets -1.
    """
    if trajectory.stop == "length":
        return -1.0
    longest = recipe.rollout.max_new_tokens
    cache = CACHE_SHARE * longest
    return min(0.0, max(-1.0, (longest - cache - trajectory.generated_tokens) / cache))
