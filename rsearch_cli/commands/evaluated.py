"""What is evaluated, in which words it is told, and what comes of it.

Place in the path: beside `evaluating`, which asks the questions; here are the settings that decide
whether a folder may be gone on with, and `results.json`. On failure: a model or an adapter that is
not there is a `PolicyError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rsearch_cli.evaluate.comparison import compare_records
from rsearch_cli.evaluate.records import Record
from rsearch_cli.evaluate.results import summarise_method
from rsearch_cli.policy.choice import describe_weights
from rsearch_cli.policy.loading import locate_model
from rsearch_cli.questions.sets import QuestionSet
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.sources import SearchSource
from rsearch_cli.services.purse import Purse
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
# By whether a server is asked.
_LATENCY = {
    False: "latency is that of such a batch",
    True: "latency is that of a question's own calls and of its batch's searches",
}


@dataclass(frozen=True, slots=True)
class Evaluating:
    """What is to be evaluated.

    Attributes:
        recipe: All settings; `policy.endpoint.url` decides between a server and local weights.
        adapter: Folder of a trained adapter on the local weights, or None.
        methods: Of `evaluate.baselines.METHODS`, each once.
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


def describe_policy(wanted: Evaluating) -> dict[str, str | None]:
    """Name the policy: the server and its model, or the weights.

    Raises:
        PolicyError: The model or the adapter is not there.
    """
    policy = wanted.recipe.policy
    if policy.endpoint.url is not None:
        url = hide_login(policy.endpoint.url)
        return {"model": policy.endpoint.model or policy.model, "url": url}
    weights = describe_weights(locate_model(policy.model), wanted.adapter)
    return {"model": policy.model, **weights}


def describe_settings(
    wanted: Evaluating,
    questions: Sequence[Question],
    sources: Mapping[str, SearchSource],
    weights: Mapping[str, str | None],
) -> dict[str, Any]:
    """All that predictions depend on, as `evaluation.json` keeps it; prices and limits do not."""
    recipe = _without(wanted.recipe.model_dump(), _LEFT_OUT)
    asked = [[q.id, q.text, q.answers, q.supporting_titles] for q in questions]
    judged = recipe["reward"]["answer"] == "judge"
    return {
        "version": VERSION,
        "methods": list(wanted.methods),
        "split": wanted.split,
        "limit": wanted.limit,
        "batch_size": wanted.batch_size,
        "seed": recipe["seed"],
        "policy": dict(weights),
        "questions": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16],
        "sources": {name: source.fingerprint for name, source in sources.items()},
        "judge": recipe["reward"]["judge"] if judged else None,
        "recipe": {key: recipe[key] for key in ("policy", "protocol", "search", "rollout")},
    }


def make_results(
    wanted: Evaluating,
    records: Sequence[Record],
    question_set: QuestionSet,
    sources: Mapping[str, SearchSource],
    purse: Purse,
) -> dict[str, Any]:
    """Work all figures out from stored rows.

    Returns:
        `context` (see `sheets.describe_context`), `methods` (see `summarise_method`), `differences`
        of every two methods, and `spend`, what was paid, lost batches included.
    """
    recipe = wanted.recipe
    rows = {name: [r for r in records if r.method == name] for name in wanted.methods}
    judge = recipe.reward.judge
    weights = describe_policy(wanted)
    context = {
        "n": len(next(iter(rows.values()))),
        "questions": question_set.description,
        "split": wanted.split,
        "seed": recipe.seed,
        "policy": ", ".join(f"{k} {v}" for k, v in weights.items() if v is not None),
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
        "batch_size": wanted.batch_size,
        "latency": _LATENCY[recipe.policy.endpoint.url is not None],
    }
    return {
        "context": context,
        "methods": {name: summarise_method(mine) for name, mine in rows.items()},
        "differences": {
            f"{first} against {second}": _without_flips(compare_records(rows[second], rows[first]))
            for first, second in combinations(wanted.methods, 2)
        },
        "spend": {name: asdict(spend) for name, spend in purse.snapshot().services.items()},
    }


def _without(tree: Any, names: Collection[str]) -> Any:
    """Nested settings without the keys of these names."""
    if not isinstance(tree, dict):
        return tree
    return {key: _without(value, names) for key, value in tree.items() if key not in names}


def _without_flips(comparison: dict[str, Any]) -> dict[str, Any]:
    return {key: comparison[key] for key in ("n", "metrics")}
