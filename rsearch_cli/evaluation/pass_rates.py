"""Pass rates of questions from sampled answers."""

from __future__ import annotations

from collections.abc import Sequence

from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.samples import by_question
from rsearch_cli.questions.profile import RIGHT, PassRate
from rsearch_cli.recipe.training import RewardConfig
from rsearch_cli.reward.composite import earned_answer


def measure_pass_rates(results: Sequence[EvalResult], reward: RewardConfig) -> list[PassRate]:
    """Return the pass rate of each question, in the order of asking.

    Args:
        results: Samples of every question.
        reward: Decides which answers are right.
    """
    rates = []
    for samples in by_question(results):
        scores = [right for sample in samples if (right := is_right(sample, reward)) is not None]
        rates.append(
            PassRate(
                id=samples[0].id,
                question=samples[0].text,
                answers=samples[0].references,
                rate=sum(scores) / len(scores) if scores else None,
                scored=len(scores),
                # Without a reference answer there is nothing to fail.
                failed=len(samples) - len(scores) if samples[0].references else 0,
            )
        )
    return rates


def is_right(sample: EvalResult, reward: RewardConfig) -> bool | None:
    """Return whether the reward counts an answer as right, or None if it could not be scored.

    A sample with a failed search is not scored either: with that search, the answer might have been
    another one.
    """
    score = {"em": sample.em, "f1": sample.f1, "judge": sample.judge}[reward.answer]
    if score is None or sample.failure is not None or sample.failed_searches:
        return None
    return earned_answer(score, sample.plan_valid, reward.require_valid_plan) >= RIGHT
