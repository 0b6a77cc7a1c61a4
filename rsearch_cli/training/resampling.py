"""Dynamic sampling: groups whose rewards are all equal are replaced by groups of other questions.

Such a group has no advantages, so it was paid for and teaches nothing (DAPO, arXiv 2503.14476).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rsearch_cli.distributed import rank
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.services.runtime import JUDGE
from rsearch_cli.services.spend import Spend
from rsearch_cli.types import Question, RewardParts, Trajectory

TOLERANCE = 1e-6
"""Rewards that differ by no more than this are equal: they are sums of rounded products."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A rollout with what was made of it.

    Attributes:
        trajectory: The rollout.
        parts: Its scores.
        reward: What the trainer receives; None if unscored.
    """

    trajectory: Trajectory
    parts: RewardParts
    reward: float | None


Sample = Callable[[Sequence[Question]], list[list[Scored]]]
"""Rolls out questions of this process; returns the scored rollouts of every process, by rank."""


def replace_ties(
    first: Sequence[Sequence[Scored]],
    questions: Sequence[Question],
    recipe: Recipe,
    step: int,
    sample: Sample,
) -> tuple[list[list[Scored]], list[Scored]]:
    """Replace the groups of a step that teach nothing, at most `train.resample_ties` times.

    The questions that take their place are drawn by the seed and the step alone, so a resumed run
    repeats them. All processes know the rollouts of all, and decide the same.

    Args:
        first: By process, its rollouts; those of a question follow each other.
        questions: The training questions.
        recipe: Its train section and its seed are read.
        step: Optimiser steps finished before this one.
        sample: Called by all processes at once, with no questions where nothing is to be replaced.

    Returns:
        The rollouts to train on, in the form of `first`, and those that were replaced.
    """
    size = recipe.train.num_generations
    kept = [list(rows) for rows in first]
    replaced: list[Scored] = []
    asked = {row.trajectory.question.text for rows in kept for row in rows}
    spare = [question for question in questions if question.text not in asked]
    random.Random(f"{recipe.seed} {step} other questions").shuffle(spare)
    for _ in range(recipe.train.resample_ties):
        places = [(i, start) for i, rows in enumerate(kept) for start in find_ties(rows, size)]
        chosen = list(zip(places, spare, strict=False))
        if not chosen:
            break
        del spare[: len(chosen)]
        mine = [question for (process, _), question in chosen if process == rank()]
        sampled = sample([question for question in mine for _ in range(size)])
        groups = [iter(_split(rows, size)) for rows in sampled]
        for (process, start), _ in chosen:
            place = slice(start, start + size)
            replaced += kept[process][place]
            kept[process][place] = next(groups[process])
    return kept, replaced


def find_ties(rows: Sequence[Scored], size: int) -> list[int]:
    """Return where the groups start that have fewer than two different rewards.

    Args:
        rows: `[B*G]` rollouts, group by group.
        size: Rollouts of a group.
    """
    ties = []
    for number, group in enumerate(_split(rows, size)):
        rewards = [row.reward for row in group if row.reward is not None]
        if not rewards or max(rewards) - min(rewards) <= TOLERANCE:
            ties.append(number * size)
    return ties


def price_replaced(
    replaced: Sequence[Trajectory], kept: Sequence[Trajectory], before: Spend, after: Spend
) -> float:
    """Return what the replaced rollouts of a step cost, in USD.

    The different searches of a step have equal shares of what its searches cost, and its rollouts
    equal shares of what its verdicts cost. A search that a kept rollout has sent too counts for
    that one. Which searches were in the cache does not count: a resumed run finds there what it has
    paid for in the step that it repeats.

    Args:
        replaced: The rollouts that were replaced.
        kept: Those that are trained on.
        before: The spend of the run when the step began.
        after: The spend of the run now.
    """
    judge = _usd(after, JUDGE) - _usd(before, JUDGE)
    search = after.total.usd - before.total.usd - judge
    needed = _list_requests(kept)
    wasted = _list_requests(replaced) - needed
    verdicts = len(replaced) / max(1, len(replaced) + len(kept))
    return judge * verdicts + search * len(wasted) / max(1, len(wasted) + len(needed))


def _list_requests(trajectories: Sequence[Trajectory]) -> set[tuple[str, str, tuple[str, ...]]]:
    """Return the different searches of rollouts: source, query, and the words added to it."""
    return {
        (result.node.source, result.node.query, tuple(result.expansion))
        for trajectory in trajectories
        for round_ in trajectory.rounds
        for result in round_.results
    }


def _usd(spend: Spend, service: str) -> float:
    return spend.services[service].usd if service in spend.services else 0.0


def _split(rows: Sequence[Scored], size: int) -> list[Sequence[Scored]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
