"""Several sampled answers to a question: how they are drawn, and their scores per question.

A question counts once, however many answers it has: its score is the mean of their scores, and
intervals and tests are over questions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import comb

from rsearch_cli.evaluation.metrics import METRICS, mean, scores
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.stored import Batch
from rsearch_cli.policy.generation import GREEDY, Sampling
from rsearch_cli.recipe.schema import Recipe

Answers = Sequence[EvalResult]
"""The answers of one method to one question: a greedy one, or samples."""

Scores = Mapping[str, Callable[[Answers], float | None]]
"""How a question's answers are scored, by name; None where none of them has such a score."""

_PASSES = {"em": "pass", "judge": "judge_pass"}


def start_batch(batch: Batch, recipe: Recipe, *, on_server: bool) -> Sampling:
    """Return how a batch is decoded; before samples, seed the generators of local weights.

    The seed follows from the recipe's, the questions of the batch and the sample, so a batch that
    is asked again gets the same answers. A server's replies are kept in the cache instead.
    """
    if batch.sample is None:
        return GREEDY
    settings = recipe.rollout
    draw = f"seed {recipe.seed}, sample {batch.sample}"
    if not on_server:
        import torch

        named = "\n".join([draw, batch.method, *(question.id for question in batch.questions)])
        torch.manual_seed(int.from_bytes(hashlib.sha256(named.encode()).digest()[:4], "big"))
    return Sampling(settings.temperature, settings.top_p, draw)


def by_question(results: Sequence[EvalResult]) -> list[list[EvalResult]]:
    """Return the samples of each question together; a greedy answer is on its own.

    A question that occurs again, with the same sample, begins a group of its own.
    """
    groups: dict[object, list[EvalResult]] = {}
    seen = Counter[object]()
    for result in results:
        question = (result.id, result.text, result.references)
        occurrence = seen[question, result.sample]
        seen[question, result.sample] += 1
        groups.setdefault((question, occurrence), []).append(result)
    return list(groups.values())


def question_scores(names: Iterable[str] = METRICS) -> Scores:
    """Return how a question is scored by each metric: the mean over its answers that have one."""
    return {name: partial(_mean_score, name) for name in names}


def pass_scores(samples: int) -> Scores:
    """Return how a question is scored by pass@k, for k = 2, 4, 8, ... and `samples`.

    `pass@k` is of exact match and `judge_pass@k` of the judge's score; see `expected_best`. A
    question with fewer than k scored answers has none.
    """
    return {
        f"{name}@{k}": partial(_pass_score, metric, k)
        for metric, name in _PASSES.items()
        for k in pass_counts(samples)
    }


def _mean_score(metric: str, answers: Answers) -> float | None:
    return mean(scores(answers, metric))


def _pass_score(metric: str, k: int, answers: Answers) -> float | None:
    values = scores(answers, metric)
    return expected_best(values, k) if len(values) >= k else None


def pass_counts(samples: int) -> list[int]:
    """Return the k of pass@k that this many samples give: powers of two, and all of them."""
    powers = (2**i for i in range(1, samples.bit_length()))
    return sorted({k for k in (*powers, samples) if 1 < k <= samples})


def expected_best(values: Sequence[float], k: int) -> float:
    """Return the expected highest of k of the values, drawn without replacement.

    For scores of 0 and 1 it is the unbiased estimator of pass@k, 1 - C(n - c, k) / C(n, k) with c
    correct of n samples (Chen et al. 2021, arXiv 2107.03374, equation 1). With k = n it is the
    highest value.

    Args:
        values: `[n]` scores, n >= k.
        k: At least 1.
    """
    # C(i, k - 1) of the C(n, k) choices have the value at position i as their highest.
    ways = sum(value * comb(i, k - 1) for i, value in enumerate(sorted(values)))
    return ways / comb(len(values), k)
