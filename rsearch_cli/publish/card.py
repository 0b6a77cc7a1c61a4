"""The model card: metadata for the Hub, and everything a stranger must know to trust an agent.

Place in the path: the last file of staging, written from the run's record and from what the checks
found; names and other text of the run are escaped for Markdown. On failure: metadata that
huggingface_hub's own card classes cannot read back are a `PublishError`; what the run did not
measure, the card says was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsearch_cli import __version__
from rsearch_cli.publish.base import Base
from rsearch_cli.publish.contents import Findings
from rsearch_cli.publish.figures import (
    NO_JUDGE,
    describe_intervals,
    evaluation_table,
    unproven_gains,
    weakest_types,
)
from rsearch_cli.publish.merging import MergeCheck
from rsearch_cli.publish.metadata import check_metadata, write_metadata
from rsearch_cli.publish.method import describe_training
from rsearch_cli.publish.record import RunRecord, public_recipe
from rsearch_cli.publish.usage import describe_usage, fenced, system_prompt
from rsearch_cli.recipe.documents import dump_document
from rsearch_cli.terminal import code_span, escape_markdown, printable

_CITATION = """\
@article{shi2025rsearch,
  title={Reinforcement Fine-Tuning for Reasoning towards Multi-Step Multi-Source Search in Large \
Language Models},
  author={Shi, Wentao and Shen, Yiqing},
  journal={arXiv preprint arXiv:2506.08352},
  year={2025}
}
@article{shao2024deepseekmath,
  title={DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models},
  author={Shao, Zhihong and others},
  journal={arXiv preprint arXiv:2402.03300},
  year={2024}
}"""


def write_card(record: RunRecord, findings: Findings) -> str:
    """The whole card: YAML metadata and Markdown.

    Raises:
        PublishError: The metadata do not survive huggingface_hub's own reading.
    """
    name = findings.contents.repo_id.rpartition("/")[2]
    sections = {
        None: _opening(record, findings),
        "How to use it": describe_usage(findings.contents, findings.base, record.recipe),
        "Evaluation": _evaluation(record),
        "Training": describe_training(record, findings),
        "Data": _data(record),
        "Cost": _cost(record),
        "Limits and known failures": _limits(record, findings),
        "Protocol and system prompt": _protocol(record),
        "Recipe": _recipe(record, findings.base),
        "Citation": fenced(_CITATION, "bibtex"),
    }
    body = "\n\n".join(
        text if title is None else f"## {title}\n\n{text}" for title, text in sections.items()
    )
    card = printable(f"---\n{write_metadata(record, findings)}\n---\n\n# {name}\n\n{body}\n")
    check_metadata(card, record)
    return card


def _opening(record: RunRecord, findings: Findings) -> str:
    base = findings.base
    licence = findings.licence["license"]
    if licence == "unknown":
        told = "unknown: no card of the base says it"
    else:
        told = f"{code_span(findings.licence.get('license_name', licence))}, as its own card says"
    named = " (named by the person who pushed; the run used a folder)" if base.named_by_hand else ""
    name = escape_markdown(base.name)
    link = f"[{name}](https://huggingface.co/{base.public})" if base.public else name
    along = " Its weights lie in `base/`." if findings.contents.base else ""
    return (
        "A search agent: for a question it thinks, writes a small plan of sub-queries, gets the "
        "results filled in by the system, and answers. Trained with "
        f"rsearch {__version__}; this card was made from the run folder alone.\n\n"
        f"- **Base model:** {link}{named}.{along}\n"
        f"- **Licence of the base:** {told}.\n"
        f"- **Holds:** {_holds(findings)}."
    )


def _holds(findings: Findings) -> str:
    contents = findings.contents
    adapter = f"LoRA adapter of rank {contents.rank}"
    where = f" in `{contents.adapter_folder}/`" if contents.adapter_folder else ""
    parts = [
        adapter + where if contents.adapter else "",
        "merged weights" if contents.merged else "",
        f"GGUF ({code_span(contents.gguf)})" if contents.gguf else "",
    ]
    return ", ".join(filter(None, parts))


def _evaluation(record: RunRecord) -> str:
    table = evaluation_table(record)
    if not table:
        return "Not measured: the run was not evaluated to its end."
    summary, recipe = record.summary, record.recipe
    after = summary["after"]
    return (
        f"{_shown(after, 'n')} questions of the split {code_span(summary['split'])} of "
        f"{escape_markdown(record.data.name)}, the same ones before and after.\n\n{table}\n\n"
        f"- **Intervals:** {describe_intervals(record)}.\n"
        f"- **Search provider and corpus:** {escape_markdown(record.providers)}.\n"
        f"- **Passages a sub-query:** {recipe.search.top_k}.\n"
        f"- **Judge:** {NO_JUDGE}; normalisation `{recipe.reward.normalisation}`.\n"
        f"- **Failed searches:** {_shown(after, 'failed_searches')} of "
        f"{_shown(after, 'searches')} after training."
    )


def _data(record: RunRecord) -> str:
    data = record.data
    link = f" (https://huggingface.co/datasets/{data.hub_id})" if data.hub_id else ""
    described = record.summary.get("questions")
    # A description may name a local file by its path; the recipe's question file is known by name.
    seen = ""
    if described and "/" not in described:
        seen = f" The run says: {escape_markdown(described)}."
    return (
        f"Questions: {escape_markdown(data.name)}{link}, trained on the split "
        f"{code_span(record.recipe.questions.train_split)}.{seen}\n\nLicence of the questions: "
        f"{data.licence}."
    )


def _cost(record: RunRecord) -> str:
    environment = record.environment
    device = _shown(environment, "device")
    memory = environment.get("device_memory_gb")
    threads = environment.get("cpu_threads")
    hours, seconds = record.step_hours, record.summary.get("seconds")
    services = {n: s for n, s in record.services.items() if s.usd or s.saved_usd}
    dollars = ", ".join(f"{escape_markdown(n)} ${s.usd:.4f}" for n, s in services.items())
    total = sum(s.usd for s in record.services.values())
    return (
        f"- **Hardware:** {device}{f', {memory:g} GB' if memory else ''}"
        f"{f', CPU threads: {threads:d}' if device == 'cpu' and threads else ''}.\n"
        f"- **Hours:** {'not recorded' if hours is None else f'{hours:.2f}'} in training steps"
        + (f"; {seconds / 3600:.2f} for the last start as a whole" if seconds else "")
        + ".\n"
        f"- **Paid to outside services:** ${total:.4f}{f' ({dollars})' if dollars else ''}. "
        "Electricity and rent of the machine are not recorded."
    )


def _limits(record: RunRecord, findings: Findings) -> str:
    after = record.summary.get("after") or {}
    points = [f"One run with seed {record.recipe.seed}: the spread over seeds is not measured."]
    if unproven := unproven_gains(record):
        points.append(
            f"No sure gain in {'; '.join(unproven)}: 0 lies in the difference's 95 % interval."
        )
    if weakest := weakest_types(record):
        kinds = escape_markdown(", ".join(weakest))
        points.append(f"Weakest kinds of question, exact match: {kinds}.")
    for key, words in (("plan_valid", "a valid plan"), ("format_valid", "a valid format")):
        if after.get(key) is not None and after[key] < 1:
            points.append(f"{1 - after[key]:.1%} of its greedy answers lack {words}.")
    truncated = record.last("truncated")
    if truncated:
        points.append(f"{truncated:.1%} of the completions of the last steps ran out of tokens.")
    if after.get("failed_searches"):
        points.append(
            f"{_shown(after, 'failed_searches')} of {_shown(after, 'searches')} searches of the "
            "evaluation failed; its figures contain that."
        )
    if record.four_bit and findings.merge:
        points.append(
            "Trained and evaluated on 4-bit weights, merged into full-precision ones: the merged "
            "model answers a little otherwise than the policy that was evaluated."
        )
    if findings.merge:
        points.append(_describe_merge(findings.merge))
    if findings.contents.gguf:
        points.append("The GGUF file was converted, not evaluated.")
    points += [
        "Measured with the sources named above only; with other sources or corpora: not measured.",
        "Answers are only as good as what the search finds; a passage can mislead the model.",
        "Not measured: other languages, harmful content, bias, speed when served.",
    ]
    return "\n".join(f"- {point}" for point in points)


def _describe_merge(merge: MergeCheck) -> str:
    ties = f", {merge.ties} part where rounding decides between two tokens" if merge.ties else ""
    return (
        f"Merged weights against base and adapter, greedy, before the upload: {merge.identical} of "
        f"{merge.prompts} prompts answered with the very same tokens{ties}. The table above is of "
        "base and adapter."
    )


def _protocol(record: RunRecord) -> str:
    rules, rollout = record.recipe.protocol, record.recipe.rollout
    shape = (
        "<think> … </think>\n<search>\nNodes:\nA: query (Source)\nB: query (Source)\nEdges:\n"
        f"A -> B\n</search>\n<{rules.result_tag}> filled in by the system </{rules.result_tag}>\n"
        "<answer> … </answer>"
    )
    prompt, sources = system_prompt(record.recipe), escape_markdown(", ".join(rules.sources))
    examples = f" {rules.example_turns} worked examples stood as earlier turns." * (
        rules.example_turns > 0
    )
    return (
        f"{fenced(shape)}\n\nAt most {rules.max_nodes} nodes, {rules.max_query_words} words a "
        f"query, {rollout.max_turns} searches an answer. Sources: {sources}. "
        "`A -> B`: B waits for A, and what A found is added to B's query.\n\n"
        + (f"System prompt:{examples}\n\n{fenced(prompt)}" if prompt else "No system prompt.")
    )


def _recipe(record: RunRecord, base: Base) -> str:
    recipe = dump_document(public_recipe(record.recipe, base.public))
    packages = record.environment.get("packages") or {}
    versions = escape_markdown(", ".join(f"{name} {v}" for name, v in packages.items() if v))
    return (
        "The settings that others can use; addresses, paths, accounts and budgets of the run are "
        "left out. Also as `recipe.yaml`.\n\n"
        f"<details><summary>recipe.yaml</summary>\n\n{fenced(recipe, 'yaml')}\n\n</details>\n\n"
        f"Versions: {versions or 'not recorded'}."
    )


def _shown(facts: Mapping[str, Any], key: str) -> str:
    """What a file of the run says under a key."""
    return escape_markdown(str(facts.get(key, "not recorded")))
