"""Answer questions with a policy and score the answers: the one engine of all evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rsearch_cli.evaluation.failed_share import Failures, check_failed_share
from rsearch_cli.evaluation.methods import AGENT, run_method
from rsearch_cli.evaluation.result import EvalResult, score_trajectory
from rsearch_cli.policy.generation import GREEDY, Sampling
from rsearch_cli.reward.judge import AnswerJudge
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.types import Question

OnDone = Callable[[int], None]


def answer_questions(
    rollout: Rollout,
    questions: Sequence[Question],
    method: str = AGENT,
    sampling: Sampling = GREEDY,
    on_done: OnDone | None = None,
) -> list[EvalResult]:
    """Answer every question once and score the answers without a judge.

    Args:
        rollout: Policy, search layer and recipe.
        questions: `[B]` questions.
        method: One of `methods.METHODS`.
        sampling: Greedy or sampled decoding.
        on_done: Called with the number of answers completed since the previous call.

    Returns:
        `[B]` results, in order.
    """
    done = 0

    def advance(total: int) -> None:
        nonlocal done
        if on_done:
            on_done(total - done)
        done = total

    trajectories = run_method(method, rollout, questions, sampling, advance)
    return [score_trajectory(trajectory, rollout.recipe, method) for trajectory in trajectories]


def judge_answers(
    results: Sequence[EvalResult], questions: Sequence[Question], judge: AnswerJudge
) -> list[EvalResult]:
    """Return the results with the judge's scores.

    A question that the policy failed to answer has none, nor has one without a reference answer.

    Args:
        results: `[B]` results.
        questions: `[B]` their questions.
        judge: Scores the answers.
    """
    judged = list(results)
    wanted = [i for i, result in enumerate(results) if not result.failure and result.references]
    pairs = [(questions[position], results[position].answer) for position in wanted]
    for position, score in zip(wanted, judge.score_batch(pairs), strict=True):
        judged[position] = replace(results[position], judge=score, judged=True)
    return judged


def check_failures(
    results: Sequence[EvalResult],
    limit: float,
    judge_failure: str | None = None,
    next_step: str = "",
    where: str = "the evaluation",
) -> None:
    """Stop an evaluation of which too much has failed.

    Args:
        results: All results of a method so far.
        limit: `budget.max_failed_share`.
        judge_failure: Error of the judge's last failed call, or None.
        next_step: What to do about it, appended to the message.
        where: Whose answers they are, for the message.

    Raises:
        FailureShareExceeded: More than `limit` of the answers, searches or verdicts failed.
    """
    answer_errors = [result.failure for result in results if result.failure]
    search_errors = [result.search_failure for result in results if result.search_failure]
    counts = (
        Failures("answers", len(answer_errors), len(results), _last(answer_errors)),
        Failures(
            "searches",
            sum(result.failed_searches for result in results),
            sum(result.searches for result in results),
            _last(search_errors),
        ),
        Failures(
            "verdicts",
            sum(result.unscored for result in results),
            sum(result.judged for result in results),
            judge_failure,
        ),
    )
    check_failed_share(counts, limit, where, next_step)


def _last(errors: Sequence[str]) -> str | None:
    return errors[-1] if errors else None
