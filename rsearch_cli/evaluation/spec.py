"""What is evaluated, in which words it is told, and what comes of it.

Place in the path: beside `evaluating`, which asks the questions; here are the settings that decide
whether a folder may be gone on with, and `results.json`. On failure: a model or an adapter that is
not there is a `PolicyError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.folder import EvaluationFolder
from rsearch_cli.evaluation.format_problem import find_format_problem
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.summary import summarise
from rsearch_cli.policy.endpoint_probe import MODE_SETTINGS
from rsearch_cli.policy.resolve import describe_weights, locate_model
from rsearch_cli.questions.sets import QuestionSet
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.sources import SearchSource
from rsearch_cli.services.budget import Budget
from rsearch_cli.types import Question

VERSION = 3
"""Raise it when the same settings would give other predictions."""

# What changes no prediction, or stands elsewhere: `policy` names the server.
_LEFT_OUT = frozenset(
    {
        "service",
        "cache_days",
        "url",
        "usd_per_search",
        "usd_per_million_input_tokens",
        "usd_per_million_output_tokens",
    }
)
_LATENCY = "latency is that of a question's own calls and searches"
_THROUGHPUT = "seconds a question are those of a batch, divided by its questions"


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What is to be evaluated.

    Attributes:
        recipe: All settings; `policy.endpoint.url` decides between a server and local weights.
        adapter: Folder of a trained adapter on the local weights, or None.
        methods: Of `evaluation.methods.METHODS`, each once.
        split: Split of the question set, or `all`.
        limit: Most questions; None takes all.
        batch_size: Questions asked at once.
        output: The folder.
    """

    recipe: Recipe
    adapter: Path | None
    methods: tuple[str, ...]
    split: str
    limit: int | None
    batch_size: int
    output: Path


def describe_policy(wanted: EvalSpec) -> dict[str, str | None]:
    """Name the policy: the server and its model, or the weights.

    How a server is used is not in it; see `policy.endpoint_probe`.

    Raises:
        PolicyError: The model or the adapter is not there.
    """
    policy = wanted.recipe.policy
    if policy.endpoint.url is not None:
        url = hide_login(policy.endpoint.url)
        return {"model": policy.endpoint.model or policy.model, "url": url}
    weights = describe_weights(locate_model(policy.model), wanted.adapter)
    return {"model": policy.model, **weights}


def stored_policy(
    folder: EvaluationFolder, policy: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The policy with what an evaluation that is continued has settled with its server.

    Raises:
        RunFolderError: The folder's settings cannot be read.
    """
    stored = folder.read_settings().get("policy")
    settled = stored if isinstance(stored, dict) and "url" in policy else {}
    return {**policy, **{name: settled[name] for name in MODE_SETTINGS if name in settled}}


def describe_settings(
    wanted: EvalSpec,
    questions: Sequence[Question],
    sources: Mapping[str, SearchSource],
    policy: Mapping[str, str | None],
) -> dict[str, Any]:
    """All that predictions depend on, as `evaluation.json` keeps it; prices and limits do not."""
    recipe = _without(wanted.recipe.model_dump(), _LEFT_OUT)
    asked = [[q.id, q.text, q.answers, q.supporting_titles] for q in questions]
    judged = recipe["reward"]["answer"] == "judge"
    normalisation = recipe["reward"]["normalisation"]
    return {
        # Left out where it is the one that older evaluations know.
        **({"normalisation": normalisation} if normalisation != "squad" else {}),
        "version": VERSION,
        "methods": list(wanted.methods),
        "split": wanted.split,
        "limit": wanted.limit,
        "batch_size": wanted.batch_size,
        "seed": recipe["seed"],
        "policy": dict(policy),
        "questions": hashlib.sha256(dump_json(asked, ensure_ascii=True).encode()).hexdigest()[:16],
        "sources": {name: source.fingerprint for name, source in sources.items()},
        "judge": recipe["reward"]["judge"] if judged else None,
        "recipe": {key: recipe[key] for key in ("policy", "protocol", "search", "rollout")},
    }


def make_results(
    wanted: EvalSpec,
    records: Sequence[EvalResult],
    question_set: QuestionSet,
    sources: Mapping[str, SearchSource],
    budget: Budget,
    policy: Mapping[str, str | None],
) -> dict[str, Any]:
    """Work all figures out from stored rows.

    Args:
        wanted: What was evaluated.
        records: All rows.
        question_set: What was asked.
        sources: What was searched.
        budget: What was paid.
        policy: As `evaluation.json` has it.

    Returns:
        `context` (see `sheets.describe_context`), `methods` (see `summarise`; with
        `format_problem`, why not one answer keeps the format, or None), `differences`
        of every two methods, and `spend`, what was paid, lost batches included.
    """
    recipe = wanted.recipe
    rows = {name: [r for r in records if r.method == name] for name in wanted.methods}
    judge = recipe.reward.judge
    # Local weights write a batch at once, so that no question in it has a time of its own.
    in_batches = recipe.policy.endpoint.url is None and wanted.batch_size > 1
    context = {
        "n": len(next(iter(rows.values()))),
        "questions": question_set.description,
        "split": wanted.split,
        "seed": recipe.seed,
        "policy": ", ".join(f"{k} {v}" for k, v in policy.items() if v is not None),
        "sources": {
            name: {
                "kind": recipe.search.sources[name].type,
                # Kind and name are the fingerprint's ends; between them is what was searched.
                "corpus": source.fingerprint.removesuffix(f"/{name}").partition("/")[2],
            }
            for name, source in sources.items()
        },
        "top_k": recipe.search.top_k,
        "expand_dependents": recipe.search.expand_dependents,
        "judge": f"{judge.model}, {judge.mode}" if recipe.reward.answer == "judge" else None,
        "normalisation": recipe.reward.normalisation,
        "batch_size": wanted.batch_size,
        "decoding": _describe_decoding(policy),
        "latency": _THROUGHPUT if in_batches else _LATENCY,
    }
    return {
        "context": context,
        "methods": {
            name: {
                **summarise(mine, wanted.batch_size if in_batches else None),
                "format_problem": find_format_problem(mine, recipe, policy.get("results")),
            }
            for name, mine in rows.items()
        },
        "differences": {
            f"{first} against {second}": _without_flips(compare(rows[second], rows[first]))
            for first, second in combinations(wanted.methods, 2)
        },
        "spend": {name: asdict(spend) for name, spend in budget.snapshot().services.items()},
    }


def _describe_decoding(policy: Mapping[str, str | None]) -> str:
    refuses = "temperature" in (policy.get("requests") or "")
    return "not greedy (the server refuses it)" if refuses else "greedy"


def _without(tree: Any, names: Collection[str]) -> Any:
    """Nested settings without the keys of these names."""
    if not isinstance(tree, dict):
        return tree
    return {key: _without(value, names) for key, value in tree.items() if key not in names}


def _without_flips(comparison: dict[str, Any]) -> dict[str, Any]:
    return {key: comparison[key] for key in ("n", "metrics")}
