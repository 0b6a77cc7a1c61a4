"""What is evaluated, and the settings that decide whether a stored evaluation can be continued."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.policy.endpoint_probe import MODE_SETTINGS
from rsearch_cli.policy.resolve import describe_weights, locate_model
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.nested import WITHOUT_EFFECT, without
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.judge_client import find_url
from rsearch_cli.reward.rubric import PROMPT_VERSION
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.sources import SearchSource
from rsearch_cli.types import Question

VERSION = 3
"""Increase it when the same settings would give other predictions."""

PolicyFacts = Mapping[str, str | None]
"""What identifies a policy: its weights, or its server and how that is asked."""


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What is evaluated.

    Attributes:
        recipe: All settings; `policy.endpoint.url` decides between a server and local weights.
        adapter: Folder of a trained adapter for the local weights, or None.
        methods: Of `methods.METHODS`, each once.
        split: Split of the question set, or `all`.
        limit: Number of questions; None takes all.
        batch_size: Questions that are asked at once.
        output_dir: The evaluation folder.
        samples: Answers sampled per question; None for one greedy answer.
    """

    recipe: Recipe
    adapter: Path | None
    methods: tuple[str, ...]
    split: str
    limit: int | None
    batch_size: int
    output_dir: Path
    samples: int | None = None

    @property
    def on_server(self) -> bool:
        """Whether a server is evaluated and not local weights."""
        return self.recipe.policy.endpoint.url is not None


def identify_policy(spec: EvalSpec) -> PolicyFacts:
    """Identify the policy by its server and model name, or by its weights.

    How the server is asked is found out later; see `policy.endpoint_probe`.

    Raises:
        PolicyError: The model or the adapter does not exist.
    """
    policy = spec.recipe.policy
    if policy.endpoint.url is not None:
        url = hide_login(policy.endpoint.url)
        return {"model": policy.endpoint.model or policy.model, "url": url}
    weights = describe_weights(locate_model(policy.model), spec.adapter)
    return {"model": policy.model, **weights}


def add_stored_facts(policy: PolicyFacts, folder: EvaluationFolder) -> PolicyFacts:
    """Return the facts with those about the server that a stored evaluation found out.

    Raises:
        RunFolderError: The folder's settings cannot be read.
    """
    stored = folder.read_settings().get("policy")
    settled = stored if isinstance(stored, dict) and "url" in policy else {}
    return {**policy, **{name: settled[name] for name in MODE_SETTINGS if name in settled}}


def describe_settings(
    spec: EvalSpec,
    questions: Sequence[Question],
    sources: Mapping[str, SearchSource],
    policy: PolicyFacts,
    stored: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything the predictions depend on, as stored in `evaluation.json`.

    Args:
        spec: What is evaluated.
        questions: The questions.
        sources: What is searched.
        policy: What identifies the policy.
        stored: Settings of the evaluation that is continued; None for a new one.
    """
    recipe = without(spec.recipe.model_dump(), WITHOUT_EFFECT)
    asked = [[q.id, q.text, q.answers, q.supporting_titles] for q in questions]
    return {
        # Left out for one greedy answer, as in evaluations of earlier versions.
        **({} if spec.samples is None else {"samples": spec.samples}),
        "version": VERSION,
        "methods": list(spec.methods),
        "split": spec.split,
        "limit": spec.limit,
        "batch_size": spec.batch_size,
        "seed": recipe["seed"],
        "policy": dict(policy),
        "questions": hashlib.sha256(dump_json(asked, ensure_ascii=True).encode()).hexdigest()[:16],
        "sources": {name: source.fingerprint for name, source in sources.items()},
        **scoring_settings(spec.recipe, stored),
        "recipe": {key: recipe[key] for key in ("policy", "protocol", "search", "rollout")},
    }


def scoring_settings(recipe: Recipe, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings that scores depend on, as stored in `evaluation.json`.

    Args:
        recipe: Its `reward` is read.
        stored: Settings of the evaluation that is continued, or None. Unless the recipe names the
            judge's address, that of the stored verdicts stays; earlier versions did not store it.
    """
    reward = recipe.reward
    judge = None
    if reward.answer == "judge":
        judge = without(reward.judge.model_dump(), WITHOUT_EFFECT)
        former = (stored or {}).get("judge")
        if reward.judge.base_url is None and isinstance(former, Mapping):
            judge["base_url"] = former.get("base_url")
        else:
            judge["base_url"] = hide_login(find_url(reward.judge))
        if PROMPT_VERSION > 1:
            judge["prompt"] = PROMPT_VERSION
    # Left out, as the prompt above, if it is the one that evaluations of earlier versions used.
    other = {} if reward.normalisation == "squad" else {"normalisation": reward.normalisation}
    return {**other, "judge": judge}


def check_judge(recipe: Recipe, folder: EvaluationFolder) -> None:
    """Check, before it is asked, that the judge is the one of the stored verdicts.

    Raises:
        RunFolderError: OPENAI_BASE_URL names another server.
    """
    stored = folder.read_settings()
    if (stored.get("judge") or {}).get("base_url") is not None:
        folder.check_settings({**stored, **scoring_settings(recipe)})


def answers_in_batches(spec: EvalSpec) -> bool:
    """Whether no question has its own time: local weights write a whole batch at once."""
    return not spec.on_server and spec.batch_size > 1
