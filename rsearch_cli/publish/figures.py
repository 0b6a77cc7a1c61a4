"""The evaluation of a run as a card shows it: a table to read, and the Hub's `model-index`.

Place in the path: the blocks of `summary.json` come in. On failure: metrics that were not measured
are left out; a run without a summary has no figures at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsearch_cli.publish.record import RunRecord

# Name in `summary.json`: the Hub's metric type, what a person reads, and how it was decoded.
METRICS = {
    "em": ("exact_match", "Exact match", "greedy"),
    "em_sampled": ("exact_match", "Exact match", "sampled"),
    "f1": ("f1", "Token F1", "greedy"),
    "f1_sampled": ("f1", "Token F1", "sampled"),
    "plan_valid": ("plan_valid", "Valid search plan", "greedy"),
    "format_valid": ("format_valid", "Valid format", "greedy"),
}
NO_JUDGE = "none: answers are compared with the references as text"


def evaluation_table(record: RunRecord) -> str:
    """Before, after and difference of each metric as a Markdown table; "" without figures."""
    summary = record.summary
    if not summary.get("after"):
        return ""
    lines = [
        "| metric, mean and 95 % interval | before training | after training | difference |",
        "|---|---|---|---|",
    ]
    for key, (_, name, decoding) in METRICS.items():
        if summary["after"].get(key) is None:
            continue
        cells = [_estimate(summary.get(block) or {}, key) for block in ("before", "after")]
        change = _estimate(summary.get("difference") or {}, key, "+")
        lines.append(f"| {name}, {decoding} | {cells[0]} | {cells[1]} | {change} |")
    return "\n".join(lines)


def eval_results(record: RunRecord) -> list[Any]:
    """The figures after training as `huggingface_hub.EvalResult`, for `model-index`.

    `metric_args` of each hold n, the 95 % interval and its method, decoding, search provider,
    top-k, corpus and judge: a score means little without them.
    """
    from huggingface_hub import EvalResult

    after = record.summary.get("after")
    if not after:
        return []
    data, recipe = record.data, record.recipe
    conditions = {
        "n": after["n"],
        "search_provider": record.providers,
        "top_k": recipe.search.top_k,
        "judge": NO_JUDGE,
        "normalisation": recipe.reward.normalisation,
    }
    return [
        EvalResult(
            task_type="question-answering",
            task_name="Question answering by search",
            dataset_type=data.hub_id or f"rsearch/{recipe.questions.source}",
            dataset_name=data.name,
            dataset_split=record.summary.get("split", recipe.evaluate.split),
            metric_type=kind,
            metric_name=f"{name}, {decoding}",
            metric_value=round(after[key], 4),
            metric_args={
                "decoding": _decoding(record, decoding),
                "interval_95": [round(bound, 4) for bound in after["intervals"][key]],
                "interval_method": (after.get("interval_methods") or {}).get(key, "bootstrap"),
                **conditions,
            },
        )
        for key, (kind, name, decoding) in METRICS.items()
        if after.get(key) is not None
    ]


def describe_intervals(record: RunRecord) -> str:
    """How the intervals of the table were made; runs of early versions bootstrapped them all."""
    told = []
    for block, name in (("after", "means"), ("difference", "paired differences")):
        methods = (record.summary.get(block) or {}).get("interval_methods") or {}
        metrics: dict[str, list[str]] = {}
        for key, method in methods.items():
            metrics.setdefault(method, []).append(f"{METRICS[key][1].lower()}, {METRICS[key][2]}")
        by_method = (f"{method} ({'; '.join(names)})" for method, names in metrics.items())
        told.append(f"{name} by {', '.join(by_method) or 'bootstrap'}")
    return f"95 %; {'; '.join(told)}"


def unproven_gains(record: RunRecord) -> list[str]:
    """Metrics whose difference may as well be chance: 0 lies in its 95 % interval.

    Those that were perfect before are left out: they had no room to rise.
    """
    difference = record.summary.get("difference") or {}
    before = record.summary.get("before") or {}
    return [
        f"{name}, {decoding}"
        for key, (_, name, decoding) in METRICS.items()
        if difference.get(key) is not None
        and before.get(key) != 1
        and difference["intervals"][key][0] <= 0 <= difference["intervals"][key][1]
    ]


def weakest_types(record: RunRecord, most: int = 3) -> list[str]:
    """The kinds of question that go wrong most often, those without an error left out."""
    types = (record.summary.get("after") or {}).get("by_type") or {}
    wrong = sorted((block["em"], name) for name, block in types.items() if block["em"] < 1)
    return [f"{name} ({em:.2f} of {types[name]['n']})" for em, name in wrong[:most]]


def _decoding(record: RunRecord, decoding: str) -> str:
    if decoding == "greedy":
        return decoding
    rollout = record.recipe.rollout
    return f"sampled once, temperature {rollout.temperature:g}, top_p {rollout.top_p:g}"


def _estimate(block: Mapping[str, Any], key: str, sign: str = "-") -> str:
    if block.get(key) is None:
        return "not measured"
    low, high = block["intervals"][key]
    return f"{block[key]:{sign}z.3f} [{low:{sign}z.2f}, {high:{sign}z.2f}]"
