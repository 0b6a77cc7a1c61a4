"""The content of `results.json`: the conditions of an evaluation and the figures of its methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.format_problem import find_format_problem
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.spec import EvalSpec, PolicyFacts, answers_in_batches
from rsearch_cli.evaluation.summary import summarise
from rsearch_cli.questions.sets import QuestionSet
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.sources import SearchSource


def describe_conditions(
    spec: EvalSpec,
    n: int,
    question_set: QuestionSet,
    sources: Mapping[str, SearchSource],
    policy: PolicyFacts,
) -> dict[str, Any]:
    """Return what a score means nothing without, as `context` of `results.json`.

    Args:
        spec: What was evaluated.
        n: Number of questions.
        question_set: Where they are from.
        sources: What was searched.
        policy: As in `evaluation.json`.
    """
    recipe = spec.recipe
    return {
        "n": n,
        "questions": question_set.description,
        "split": spec.split,
        "seed": recipe.seed,
        "policy": ", ".join(f"{k} {v}" for k, v in policy.items() if v is not None),
        "sources": {
            name: {
                "kind": recipe.search.sources[name].type,
                # A fingerprint begins with the kind and ends with the name of the source.
                "corpus": source.fingerprint.removesuffix(f"/{name}").partition("/")[2],
            }
            for name, source in sources.items()
        },
        "top_k": recipe.search.top_k,
        "expand_dependents": recipe.search.expand_dependents,
        **describe_scoring(recipe),
        "batch_size": spec.batch_size,
        "decoding": _describe_decoding(spec, policy),
        "latency": (
            "seconds per question are those of a batch, divided by its questions"
            if answers_in_batches(spec)
            else "latency is the time of a question's own calls and searches"
        ),
    }


def describe_scoring(recipe: Recipe) -> dict[str, Any]:
    """Return how answers are scored, as part of `context`: `judge` and `normalisation`."""
    judge = recipe.reward.judge
    return {
        "judge": f"{judge.model}, {judge.mode}" if recipe.reward.answer == "judge" else None,
        "normalisation": recipe.reward.normalisation,
    }


def summarise_methods(
    spec: EvalSpec, results: Sequence[EvalResult], sent_results: str | None
) -> dict[str, Any]:
    """Return the figures of all methods.

    Args:
        spec: What was evaluated.
        results: All results.
        sent_results: How the policy's server was sent search results; None for local weights.

    Returns:
        `methods`: a summary each (see `summarise`), with `format_problem`, why no answer follows
        the format, or None; `differences`: a comparison of every two methods.
    """
    by_method = {name: [r for r in results if r.method == name] for name in spec.methods}
    batch_size = spec.batch_size if answers_in_batches(spec) else None
    return {
        "methods": {
            name: {
                **summarise(rows, batch_size),
                "format_problem": find_format_problem(rows, spec.recipe, sent_results),
            }
            for name, rows in by_method.items()
        },
        "differences": {
            f"{first} against {second}": _without_flips(
                compare(by_method[second], by_method[first])
            )
            for first, second in combinations(spec.methods, 2)
        },
    }


def _describe_decoding(spec: EvalSpec, policy: PolicyFacts) -> str:
    settings = spec.recipe.rollout
    own_temperature = "temperature" in (policy.get("requests") or "")
    if spec.samples is None:
        return "sampled (the server refuses greedy)" if own_temperature else "greedy"
    how = f"temperature {settings.temperature:g}, top-p {settings.top_p:g}"
    if own_temperature:
        how = "the server's own temperature"
    return f"{spec.samples} samples of each question, {how}"


def _without_flips(comparison: Mapping[str, Any]) -> dict[str, Any]:
    return {key: comparison[key] for key in ("n", "metrics")}
