"""How long the rows of a run are expected to be, or were in a run that was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rsearch_cli.memory.workload import (
    CHARS_PER_TOKEN,
    NODE_CHARS,
    TITLE_CHARS,
    longest_row,
)
from rsearch_cli.recipe.schema import Recipe

WRITTEN = 0.6
"""Default share of `rollout.max_new_tokens` that a row writes. What a model writes is known only
once it has written: half to two thirds is usual for a thought, a plan and an answer."""

_STEPS = 10


@dataclass(frozen=True, slots=True)
class Turn:
    """What a rollout writes up to a search or to its end.

    Attributes:
        written: Tokens of each of the rows that stand for all, in ascending order.
        share: Share in [0, 1] of all rows that have this turn.
    """

    written: tuple[float, ...]
    share: float

    @property
    def mean(self) -> float:
        """Tokens written by a row on average."""
        return fmean(self.written)

    def longest(self, rows: float) -> float:
        """Return the expected maximum of so many rows: a batch generates until the last has ended.

        That is the mean of the order statistics of the sample, each weighted by the probability
        that it is the maximum of `rows` draws.
        """
        n = len(self.written)
        weights = [(i / n) ** rows - ((i - 1) / n) ** rows for i in range(1, n + 1)]
        return sum(w * x for w, x in zip(weights, self.written, strict=True))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the rows of a run.

    Attributes:
        prompt: Tokens of a prompt.
        turns: What is written before the first search, between searches, and after the last.
        inserted: Tokens of the results of one search.
        nodes: Sub-queries of one search.
    """

    prompt: float
    turns: tuple[Turn, ...]
    inserted: float
    nodes: float

    @property
    def completion(self) -> float:
        """Tokens of a row after its prompt, on average."""
        written = sum(turn.share * turn.mean for turn in self.turns)
        return written + self.inserted * sum(turn.share for turn in self.turns[1:])


def expect_lengths(recipe: Recipe, nodes: int, written: float = WRITTEN) -> Lengths:
    """Return lengths from a recipe.

    Args:
        recipe: Its protocol, search and rollout sections are read.
        nodes: Sub-queries of a search plan.
        written: Share of the limit that a row writes on average. Rows are taken to be spread evenly
            between a shortest and the longest one.
    """
    limit, turns = recipe.rollout.max_new_tokens, recipe.rollout.max_turns + 1
    low, high = max(0.0, 2 * written - 1), min(1.0, 2 * written)
    shares = [low + (high - low) * (i + 0.5) / _STEPS for i in range(_STEPS)]
    turn = Turn(tuple(limit * share / turns for share in shares), 1.0)
    chars = NODE_CHARS + recipe.search.top_k * (recipe.search.passage_chars + TITLE_CHARS)
    return Lengths(
        longest_row(recipe).prompt, (turn,) * turns, nodes * chars / CHARS_PER_TOKEN, nodes
    )


def measure_lengths(rollouts: Sequence[Mapping[str, Any]]) -> Lengths | None:
    """Return the lengths of the rows of `trajectories.jsonl`; None without any."""
    if not rollouts:
        return None
    written: list[list[float]] = []
    inserted, searches, nodes = 0.0, 0, 0
    for rollout in rollouts:
        mine = [part["tokens"] for part in rollout["segments"] if part["author"] == "model"]
        # The last inserted token ends the row; it is no result.
        given = [part["tokens"] for part in rollout["segments"] if part["author"] != "model"]
        for index, tokens in enumerate(mine):
            if index == len(written):
                written.append([])
            written[index].append(float(tokens))
        rounds = rollout["rounds"]
        searches += len(rounds)
        inserted += sum(given[: len(rounds)])
        nodes += sum(len(round_["results"]) for round_ in rounds)
    return Lengths(
        prompt=fmean(rollout["prompt_tokens"] for rollout in rollouts),
        turns=tuple(_make_turns(written, len(rollouts))),
        inserted=inserted / max(1, searches),
        nodes=nodes / max(1, searches),
    )


def _make_turns(written: Sequence[Sequence[float]], rows: int) -> Iterable[Turn]:
    return (Turn(tuple(sorted(tokens)), len(tokens) / rows) for tokens in written)
