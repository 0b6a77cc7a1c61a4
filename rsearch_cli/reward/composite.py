"""The reward of a trajectory: the weighted sum of answer, plan validity and format.

A part without a score (None) makes the whole row unscored, because TRL would count one None among
several rewards as zero. Only an answer without any weight may lack its score.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rsearch_cli.protocol.transcript import read_transcript
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import RewardConfig, WeightsConfig
from rsearch_cli.reward.lexical import exact_match, f1
from rsearch_cli.reward.parts import find_parts, score_parts
from rsearch_cli.types import RewardParts, SearchRound, Trajectory

if TYPE_CHECKING:
    from rsearch_cli.reward.judge import AnswerJudge

_LEXICAL = {"em": exact_match, "f1": f1}


def score_trajectories(
    trajectories: Sequence[Trajectory],
    recipe: Recipe,
    step: int,
    judge: AnswerJudge | None = None,
) -> list[RewardParts]:
    """Score the trajectories of a step.

    Args:
        trajectories: The rollouts.
        recipe: Its reward section, and the format's rules; further parts may read all of it.
        step: Optimiser steps finished before this one; the first step is 0.
        judge: Scores all answers at once if the recipe's answer score is `judge`.

    Raises:
        RsearchError: The judge cannot continue: `BudgetExceeded`, `AccessDenied` and the like.
        RecipeValueError: `reward.extra` names a part that does not exist.
    """
    reward = recipe.reward
    further = find_parts(reward)
    if reward.answer != "judge":
        scores: list[float | None] = [answer_score(t, reward) for t in trajectories]
    elif judge is None:
        raise ValueError("reward.answer is judge, but no judge was opened")
    else:
        scores = judge.score_batch([(t.question, t.answer) for t in trajectories])
    scored = []
    for t, score in zip(trajectories, scores, strict=True):
        extra, failure = score_parts(further, t, recipe)
        parts = combine(
            answer=score,
            plan=plan_score(t.rounds),
            format=read_transcript(t.opening, t.segments, recipe.protocol).format_score,
            weights=weights_at(step, reward),
            gate=reward.require_valid_plan,
            extra=extra,
            extra_weights=reward.extra,
        )
        scored.append(replace(parts, failure=failure))
    return scored


def weights_at(step: int, recipe: RewardConfig) -> WeightsConfig:
    """Return the weights at `step`, counted from 0: the curriculum's for its first steps."""
    return recipe.curriculum_weights if step < recipe.curriculum_steps else recipe.weights


def answer_score(trajectory: Trajectory, recipe: RewardConfig) -> float | None:
    """Return the lexical score in [0, 1] of the trajectory's answer, 0 without an answer.

    None if the question has no reference answer.
    """
    if not trajectory.question.answers:
        return None
    if trajectory.answer is None:
        return 0.0
    score = _LEXICAL[recipe.answer]
    return score(trajectory.answer, trajectory.question.answers, recipe.normalisation)


def plan_score(rounds: Sequence[SearchRound]) -> float:
    """Return 1.0 if there is at least one round and the plan of every round is valid, else 0.0."""
    return float(bool(rounds) and all(round_.plan is not None for round_ in rounds))


def combine(
    answer: float | None,
    plan: float,
    format: float,
    weights: WeightsConfig,
    gate: bool,
    extra: Mapping[str, float | None] | None = None,
    extra_weights: Mapping[str, float] | None = None,
) -> RewardParts:
    """Combine the parts into the composite reward of R-Search (arXiv 2506.08352).

    Args:
        answer: Score of the answer in [0, 1], or None if it could not be scored, which leaves the
            trajectory unscored unless answers have no weight.
        plan: 1.0 for valid plans, else 0.0.
        format: Share of the format rules that are followed, in [0, 1].
        weights: Weights of the three parts.
        gate: Whether an invalid plan (0.0) removes the answer from the total; the answer's score is
            reported all the same.
        extra: Scores of further parts that apply, by name; None for one that could not be obtained.
        extra_weights: The weight of each; they come on top of the shares.
    """
    extra, extra_weights = extra or {}, extra_weights or {}
    known = {name: score for name, score in extra.items() if score is not None}
    if (answer is None and weights.answer) or len(known) < len(extra):
        return RewardParts(answer, plan, format, None, extra)
    earned = 0.0 if answer is None else earned_answer(answer, plan, gate)
    total = weights.answer * earned + weights.plan * plan + weights.format * format
    total += sum(extra_weights[name] * score for name, score in known.items())
    return RewardParts(answer, plan, format, total, extra)


def earned_answer(answer: float, plan: float, gate: bool) -> float:
    """Return the answer score that counts: 0 for an invalid plan if the gate is on."""
    return answer if plan or not gate else 0.0


def shuffle_answer_scores(
    parts: Sequence[RewardParts], weights: WeightsConfig, recipe: RewardConfig, rng: random.Random
) -> list[RewardParts]:
    """Shuffle the answer scores of a step among its rows: the control experiment.

    Plan and format scores stay with their rows, and unscored rows stay unscored. A policy that
    still improves under this reward does so for other reasons than its answers.
    """
    scores = [part.answer for part in parts if part.answer is not None]
    rng.shuffle(scores)
    dealt = iter(scores)
    shuffled = []
    for part in parts:
        mixed = combine(
            answer=None if part.answer is None else next(dealt),
            plan=part.plan,
            format=part.format,
            weights=weights,
            gate=recipe.require_valid_plan,
            extra=part.extra,
            extra_weights=recipe.extra,
        )
        shuffled.append(replace(mixed, failure=part.failure))
    return shuffled
