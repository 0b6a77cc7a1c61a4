"""Predicts the requests and the cost of a run from its recipe.

What a recipe cannot know is a field of `Assumptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from operator import add
from typing import Literal

from rsearch_cli.recipe.schema import Recipe

NODES = 3
"""Default number of nodes per plan: two or three hops, as in R-Search (arXiv 2506.08352)."""

HIT_RATE = 0.3
"""Default share of requests that repeat one of an earlier answer to the same question, word for
word. A cautious guess; `cache_hits/search` of a finished run is its measured value."""

JUDGE_INPUT_TOKENS = 500
"""Default tokens of the judge's prompt, with a question, its references and an answer."""

PHASES = ("evaluation before", "training", "evaluation after")


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a recipe leaves open.

    Attributes:
        nodes: Nodes per plan.
        hit_rate: Share in [0, 1] of the requests of later answers to a question that an earlier
            answer has sent already.
        judge_input_tokens: Tokens sent per verdict.
    """

    nodes: int = NODES
    hit_rate: float = HIT_RATE
    judge_input_tokens: int = JUDGE_INPUT_TOKENS


@dataclass(frozen=True, slots=True)
class Bill:
    """Requests and cost of one phase, or of a whole run.

    Attributes:
        searches: Sub-queries, to paid and free sources.
        paid_searches: Sub-queries to paid sources.
        judge_calls: Verdicts.
        usd_search: Cost of the paid searches, in USD.
        usd_judge: Cost of the verdicts, in USD.
    """

    searches: float = 0.0
    paid_searches: float = 0.0
    judge_calls: float = 0.0
    usd_search: float = 0.0
    usd_judge: float = 0.0

    @property
    def usd(self) -> float:
        """Total cost in USD."""
        return self.usd_search + self.usd_judge

    def __add__(self, other: Bill) -> Bill:
        return Bill(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a run reaches its budget: the phase and, in training, the step, counted from 1."""

    phase: str
    step: int | None = None

    def __str__(self) -> str:
        return self.phase if self.step is None else f"step {self.step}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected bills by phase, in the order of `PHASES`, and where the budget ends the run."""

    phases: tuple[Bill, ...]
    stop: Stop | None

    @property
    def total(self) -> Bill:
        """All phases together."""
        return sum(self.phases, Bill())


def estimate_run(
    recipe: Recipe,
    evaluated: int,
    assumptions: Assumptions,
    cache: Literal["empty", "none"],
    prices: Mapping[str, float],
) -> Estimate:
    """Estimate the requests and the cost of `rsearch train`.

    Assumes that every completion searches `rollout.max_turns` times, that sources are used equally
    often, that every call succeeds at the first attempt, and that all groups are replaced as often
    as `train.resample_ties` allows.

    Args:
        recipe: All of it is read except `cache.mode`.
        evaluated: Number of questions of one evaluation.
        assumptions: What the recipe leaves open.
        cache: `empty` starts with an empty cache and keeps every answer; `none` caches nothing.
        prices: Expected price of a search in USD, by source; see `search.prices.find_prices`.
    """

    def bill(answers: float, *, judged: bool) -> Bill:
        return _bill(recipe, assumptions, answers, prices, judged=judged)

    hit_rate = assumptions.hit_rate if cache == "empty" else 0.0
    train = recipe.train
    rows = train.batch_size * train.gradient_accumulation_steps
    answers = train.max_steps * rows * (1 + train.resample_ties)
    trained_on = answers / train.num_generations
    if recipe.questions.max_samples is not None:
        trained_on = min(trained_on, recipe.questions.max_samples)
    once = evaluated * (2 if recipe.evaluate.sampled else 1)
    validated = count_validations(recipe) * recipe.evaluate.slice
    first = min(validated, recipe.evaluate.slice)
    phases = (
        bill(_sent(once, evaluated, hit_rate), judged=False),
        bill(_sent(answers, trained_on, hit_rate), judged=True)
        + bill(_sent(validated, first, hit_rate), judged=False),
        # The same questions as before training: none of the answers is a first one.
        bill(_sent(once, 0, hit_rate), judged=False),
    )
    return Estimate(phases, find_stop(phases, train.max_steps, recipe.budget.max_usd))


def count_validations(recipe: Recipe) -> int:
    """Return the number of validations during training, from step 0 to the last one."""
    every, steps = recipe.evaluate.every_steps, recipe.train.max_steps
    return 0 if every is None else 1 + -(-steps // every)


def find_stop(phases: tuple[Bill, ...], steps: int, max_usd: float | None) -> Stop | None:
    """Return where the bills of the phases, in order, exceed `max_usd`; None if they never do."""
    before, training, after = (bill.usd for bill in phases)
    if max_usd is None or before + training + after <= max_usd:
        return None
    if before > max_usd:
        return Stop(PHASES[0])
    if before + training > max_usd:
        return Stop(PHASES[1], int((max_usd - before) / (training / steps)) + 1)
    return Stop(PHASES[2])


def _sent(answers: float, first: float, hit_rate: float) -> float:
    """Number of answers whose requests are sent: the `first` ones, and a share of the others."""
    return first + (answers - first) * (1.0 - hit_rate)


def _bill(
    recipe: Recipe,
    assumptions: Assumptions,
    answers: float,
    prices: Mapping[str, float],
    *,
    judged: bool,
) -> Bill:
    """Return the bill of `answers` answers without cache hits."""
    searches = answers * assumptions.nodes * recipe.rollout.max_turns
    judge = recipe.reward.judge
    verdicts = answers if judged and recipe.reward.answer == "judge" else 0.0
    usd_per_verdict = (
        assumptions.judge_input_tokens * judge.usd_per_million_input_tokens
        + judge.max_output_tokens * judge.usd_per_million_output_tokens
    ) / 1e6
    return Bill(
        searches=searches,
        paid_searches=searches * sum(usd > 0.0 for usd in prices.values()) / len(prices),
        judge_calls=verdicts,
        usd_search=searches * sum(prices.values()) / len(prices),
        usd_judge=verdicts * usd_per_verdict,
    )
