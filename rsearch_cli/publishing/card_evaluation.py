"""A run's evaluation in the model card: what its text says, and the Hub's `model-index`."""

from __future__ import annotations

from typing import Any

from rsearch_cli.publishing.facts import RunFacts

# Key in `summary.json`: the Hub's metric type, the name in the table, and the decoding.
METRICS = {
    "em": ("exact_match", "Exact match", "greedy"),
    "em_sampled": ("exact_match", "Exact match", "sampled"),
    "f1": ("f1", "Token F1", "greedy"),
    "f1_sampled": ("f1", "Token F1", "sampled"),
    "title_recall": ("title_recall", "Recall of supporting titles", "greedy"),
    "plan_valid": ("plan_valid", "Valid search plan", "greedy"),
    "format_valid": ("format_valid", "Valid format", "greedy"),
}
NO_JUDGE = "none; answers are compared with the reference answers as text"


def eval_results(run: RunFacts) -> list[Any]:
    """Return the results after training as `huggingface_hub.EvalResult`, for `model-index`.

    `metric_args` records what a score depends on: n, the 95 % interval and its method, decoding,
    search provider, top-k, corpus and judge.
    """
    from huggingface_hub import EvalResult

    after = run.summary.get("after")
    if not after:
        return []
    dataset, recipe = run.dataset, run.recipe
    conditions = {
        "n": after["n"],
        "search_provider": run.providers,
        "top_k": recipe.search.top_k,
        "judge": NO_JUDGE,
        "normalisation": recipe.reward.normalisation,
    }
    return [
        EvalResult(
            task_type="question-answering",
            task_name="Question answering with search",
            dataset_type=dataset.hub_id or f"rsearch/{recipe.questions.source}",
            dataset_name=dataset.name,
            dataset_split=run.summary.get("split", recipe.evaluate.split),
            metric_type=kind,
            metric_name=f"{name}, {decoding}",
            metric_value=round(after[key], 4),
            metric_args={
                "decoding": _decoding(run, decoding),
                "interval_95": [round(bound, 4) for bound in after["intervals"][key]],
                "interval_method": (after.get("interval_methods") or {}).get(key, "bootstrap"),
                **conditions,
            },
        )
        for key, (kind, name, decoding) in METRICS.items()
        if after.get(key) is not None
    ]


def describe_intervals(run: RunFacts) -> str:
    """Name the interval method of each metric; runs of early versions used the bootstrap only."""
    parts = []
    for block, name in (("after", "means"), ("difference", "paired differences")):
        recorded = (run.summary.get(block) or {}).get("interval_methods") or {}
        metrics: dict[str, list[str]] = {}
        for key in METRICS:
            if key in recorded:
                metrics.setdefault(recorded[key], []).append(_label(key))
        by_method = [f"{method} ({', '.join(names)})" for method, names in metrics.items()]
        methods = next(iter(metrics), "bootstrap") if len(metrics) < 2 else ", ".join(by_method)
        parts.append(f"{name} by {methods}")
    return f"95 %; {'; '.join(parts)}"


def insignificant_gains(run: RunFacts) -> list[str]:
    """Return the metrics whose difference has 0 within its 95 % interval.

    Metrics that were already perfect before training are left out: they could not rise.
    """
    difference = run.summary.get("difference") or {}
    before = run.summary.get("before") or {}
    return [
        _label(key)
        for key in METRICS
        if difference.get(key) is not None
        and before.get(key) != 1
        and difference["intervals"][key][0] <= 0 <= difference["intervals"][key][1]
    ]


def weakest_types(run: RunFacts) -> list[str]:
    """Return the three types with the lowest exact match, without those that are perfect."""
    types = (run.summary.get("after") or {}).get("by_type") or {}
    scored = ((block["em"], name) for name, block in types.items() if block["em"] is not None)
    wrong = sorted((em, name) for em, name in scored if em < 1)
    return [f"{name} ({em:.2f}, n = {types[name]['n']})" for em, name in wrong[:3]]


def _label(key: str) -> str:
    _, name, decoding = METRICS[key]
    return f"{decoding} {name[0].lower()}{name[1:]}"


def _decoding(run: RunFacts, decoding: str) -> str:
    if decoding == "greedy":
        return decoding
    rollout = run.recipe.rollout
    return f"sampled once, temperature {rollout.temperature:g}, top_p {rollout.top_p:g}"
