"""Predicts the requests and the cost of a run from its recipe.

What a recipe cannot know is a field of `Assumptions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from operator import add
from typing import Literal

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.teacher import recipe_of_teacher
from rsearch_cli.recipe.training import TEACHER
from rsearch_cli.timing.lengths import expect_lengths

NODES = 3
"""Default number of nodes per plan: two or three hops, as in R-Search (arXiv 2506.08352)."""

HIT_RATE = 0.3
"""Default share of requests that repeat one of an earlier answer to the same question, word for
word. A cautious guess; `cache_hits/search` of a finished run is its measured value."""

JUDGE_INPUT_TOKENS = 500
"""Default tokens of the judge's prompt, with a question, its references and an answer."""

TRAINING = "training"
PHASES = ("evaluation before", TRAINING, "evaluation after")

SFT_PHASES = ("collecting traces", "evaluation before", "evaluation after")
"""Phases of a supervised run; its training sends nothing."""


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
        teacher_calls: Requests to `sft.teacher`.
        usd_search: Cost of the paid searches, in USD.
        usd_judge: Cost of the verdicts, in USD.
        usd_teacher: Cost of the requests to the teacher, in USD.
    """

    searches: float = 0.0
    paid_searches: float = 0.0
    judge_calls: float = 0.0
    teacher_calls: float = 0.0
    usd_search: float = 0.0
    usd_judge: float = 0.0
    usd_teacher: float = 0.0

    @property
    def usd(self) -> float:
        """Total cost in USD."""
        return self.usd_search + self.usd_judge + self.usd_teacher

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
    """Expected bills by phase, in order, and where the budget ends the run."""

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
    traced: int = 0,
) -> Estimate:
    """Estimate the requests and the cost of `rsearch train`.

    Assumes that every completion searches `rollout.max_turns` times, that sources are used equally
    often, that every call succeeds at the first attempt, that all groups are replaced as often as
    `train.resample_ties` allows, and that a teacher is asked every question as often as it may be.

    Args:
        recipe: All of it is read except `cache.mode`.
        evaluated: Number of questions of one evaluation.
        assumptions: What the recipe leaves open.
        cache: `empty` starts with an empty cache and keeps every answer; `none` caches nothing.
        prices: Expected price of a search in USD, by source; see `search.prices.find_prices`.
        traced: Number of training questions that traces are searched for.
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
    before = bill(_sent(once, evaluated, hit_rate), judged=False)
    # The same questions as before training: none of the answers is a first one.
    after = bill(_sent(once, 0, hit_rate), judged=False)
    max_usd = recipe.budget.max_usd
    if recipe.stage == "sft":
        taught = recipe.sft.traces == TEACHER
        sampled = traced * (recipe.sft.teacher.samples if taught else 1)
        traces = bill(_sent(sampled, traced, hit_rate), judged=False)
        traces += _bill_teacher(recipe, assumptions, sampled if taught else 0)
        phases = (traces, before, after)
        return Estimate(phases, find_stop(phases, 0, max_usd, SFT_PHASES))
    validated = count_validations(recipe) * recipe.evaluate.slice
    first = min(validated, recipe.evaluate.slice)
    training = bill(_sent(answers, trained_on, hit_rate), judged=True)
    training += bill(_sent(validated, first, hit_rate), judged=False)
    phases = (before, training, after)
    return Estimate(phases, find_stop(phases, train.max_steps, max_usd))


def count_validations(recipe: Recipe) -> int:
    """Return the number of validations during training, from step 0 to the last one."""
    every, steps = recipe.evaluate.every_steps, recipe.train.max_steps
    return 0 if every is None else 1 + -(-steps // every)


def find_stop(
    phases: Sequence[Bill], steps: int, max_usd: float | None, names: Sequence[str] = PHASES
) -> Stop | None:
    """Return where the bills of the phases, in order, exceed `max_usd`; None if they never do."""
    left = math.inf if max_usd is None else max_usd
    for name, bill in zip(names, phases, strict=True):
        if bill.usd > left:
            step = int(left / (bill.usd / steps)) + 1 if name == TRAINING else None
            return Stop(name, step)
        left -= bill.usd
    return None


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


def _bill_teacher(recipe: Recipe, assumptions: Assumptions, answers: float) -> Bill:
    """Return the bill of a teacher's answers: each turn is a request with all that came before."""
    teacher = recipe.sft.teacher
    lengths = expect_lengths(recipe_of_teacher(recipe), assumptions.nodes)
    written = [turn.mean for turn in lengths.turns]
    sent = sum(
        lengths.prompt + turn * lengths.inserted + sum(written[:turn])
        for turn in range(len(written))
    )
    usd_per_answer = (
        sent * teacher.usd_per_million_input_tokens
        + sum(written) * teacher.usd_per_million_output_tokens
    ) / 1e6
    return Bill(teacher_calls=answers * len(written), usd_teacher=answers * usd_per_answer)
