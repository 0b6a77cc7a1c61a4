"""Evaluations of the policy in training: before and after, and on the validation slice.

The processes of a training share the questions. Times and costs are not recorded, so that two
identical runs store identical predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsearch_cli.distributed import collect, fail_together, share
from rsearch_cli.evaluation.answering import OnDone, answer_questions, check_failures
from rsearch_cli.evaluation.comparison import compare, pair_results
from rsearch_cli.evaluation.methods import AGENT
from rsearch_cli.evaluation.metrics import mean, scores
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.summary import summarise
from rsearch_cli.policy.generation import GREEDY, Sampling
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.types import Question

SCORES = ("em", "f1", "title_recall", "all_titles", "plan_valid", "format_valid")
"""Metrics of the greedy answers that `summary.json` compares."""

SAMPLED = ("em", "f1")
"""Metrics of the sampled answers, stored as `em_sampled` and `f1_sampled`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of one policy on one list of questions.

    Attributes:
        greedy: `[B]` results of greedy decoding.
        sampled: `[B]` results of one sample per question, or None.
    """

    greedy: list[EvalResult]
    sampled: list[EvalResult] | None = None


def evaluate_policy(
    rollout: Rollout, questions: Sequence[Question], on_done: OnDone | None = None
) -> Evaluation:
    """Answer every question greedily and, if the recipe asks for it, once more by sampling.

    Sampling starts from the recipe's seed, so that two evaluations of one policy agree.

    Args:
        rollout: Policy, search layer and recipe.
        questions: `[B]` questions.
        on_done: Called with the number of answers completed since the previous call.

    Raises:
        FailureShareExceeded: More searches failed than `budget.max_failed_share` permits.
    """
    import torch

    recipe = rollout.recipe
    greedy = answer_together(rollout, questions, GREEDY, on_done)
    if not recipe.evaluate.sampled:
        return Evaluation(greedy)
    torch.manual_seed(recipe.seed)
    sampling = Sampling(recipe.rollout.temperature, recipe.rollout.top_p)
    return Evaluation(greedy, answer_together(rollout, questions, sampling, on_done))


def score_slice(rollout: Rollout, questions: Sequence[Question]) -> dict[str, float | int | None]:
    """Answer the questions of the validation slice greedily.

    Returns:
        The means of `SCORES`, each in [0, 1] or None without such scores; `completion_length`,
        the mean number of tokens written by the policy; and `n` questions.
    """
    results = answer_together(rollout, questions)
    means = {metric: mean(scores(results, metric)) for metric in SCORES}
    length = mean([float(result.completion_tokens) for result in results])
    return {**means, "completion_length": length, "n": len(results)}


def answer_together(
    rollout: Rollout,
    questions: Sequence[Question],
    sampling: Sampling = GREEDY,
    on_done: OnDone | None = None,
) -> list[EvalResult]:
    """Answer questions as the agent, shared among the processes of a training.

    Each process answers its part; all of them return all results, in order.

    Raises:
        FailureShareExceeded: Too many searches failed; see `check_failures`.
    """
    with fail_together():
        results = answer_questions(rollout, share(questions), AGENT, sampling, on_done)
        check_failures(results, rollout.recipe.budget.max_failed_share)
    return collect(results)


def summarise_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Summarise an evaluation of a training, as `before` and `after` of `summary.json`.

    Returns:
        The summary of the greedy answers with `em_sampled` and `f1_sampled` (None without samples);
        `searches`, `failed_searches` and `failed_reads` count both decodings.

    Raises:
        DataEmpty: There is no result.
        DataError: The sampled answers are not of the same questions.
    """
    summary = summarise(evaluation.greedy)
    if evaluation.sampled is None:
        return summary | {f"{metric}_sampled": None for metric in SAMPLED}
    pair_results(evaluation.greedy, evaluation.sampled)
    sampled = summarise(evaluation.sampled)
    for count in ("searches", "failed_searches", "failed_reads"):
        summary[count] += sampled[count]
    for metric in SAMPLED:
        summary[f"{metric}_sampled"] = sampled[metric]
        for block in ("intervals", "interval_methods"):
            if metric in sampled[block]:
                summary[block][f"{metric}_sampled"] = sampled[block][metric]
    return summary


def summarise_difference(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Summarise what a training changed, as `difference` of `summary.json`.

    Returns:
        By metric the mean of `after - before`, paired by question (None without such scores, and
        the sampled ones if either side has no samples), `n` questions, and `intervals` (95 %) with
        their `interval_methods`.

    Raises:
        DataError: The two are not of the same questions.
    """
    greedy = compare(before.greedy, after.greedy)
    rows = {metric: greedy["metrics"].get(metric) for metric in SCORES}
    rows |= {f"{metric}_sampled": None for metric in SAMPLED}
    if before.sampled and after.sampled:
        sampled = compare(before.sampled, after.sampled)["metrics"]
        rows |= {f"{metric}_sampled": sampled.get(metric) for metric in SAMPLED}
    known = {name: row for name, row in rows.items() if row is not None}
    return {
        "n": greedy["n"],
        **{name: row and row["difference"] for name, row in rows.items()},
        "intervals": {name: row["interval"] for name, row in known.items()},
        "interval_methods": {name: row["interval_method"] for name, row in known.items()},
    }
