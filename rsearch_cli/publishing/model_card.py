"""The model card: Hub metadata, and what a stranger needs to judge and use the agent.

Everything is derived from `facts`, and text from the run is escaped for Markdown. Facts that the
run did not measure or record are listed as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsearch_cli import __version__
from rsearch_cli.errors import PublishError
from rsearch_cli.publishing.base_model import BaseWeights
from rsearch_cli.publishing.card_evaluation import (
    NO_JUDGE,
    describe_intervals,
    eval_results,
    evaluation_table,
    insignificant_gains,
    weakest_types,
)
from rsearch_cli.publishing.card_training import describe_training
from rsearch_cli.publishing.card_usage import describe_usage, fenced, system_prompt
from rsearch_cli.publishing.facts import Repository, RunFacts, public_recipe
from rsearch_cli.publishing.merge import MergeCheck
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


def write_card(run: RunFacts, repository: Repository) -> str:
    """Return the whole card: YAML metadata and Markdown.

    Raises:
        PublishError: huggingface_hub cannot read the metadata back unchanged.
    """
    sections = {
        "Usage": describe_usage(repository, run.recipe),
        "Evaluation": _evaluation(run),
        "Training": describe_training(run, repository),
        "Data": _data(run),
        "Compute and cost": _cost(run),
        "Limitations": _limitations(run, repository),
        "Protocol and system prompt": _protocol(run),
        "Recipe": _recipe(run, repository.base),
        "Citation": fenced(_CITATION, "bibtex"),
    }
    body = "\n\n".join(
        [_opening(repository), *(f"## {title}\n\n{text}" for title, text in sections.items())]
    )
    metadata = _metadata(run, repository)
    card = printable(f"---\n{metadata}\n---\n\n# {repository.name}\n\n{body}\n")
    _check_metadata(card, run)
    return card


def _metadata(run: RunFacts, repository: Repository) -> str:
    """Return the card's YAML header, without its fences."""
    from huggingface_hub import ModelCardData

    base = repository.base.hub_id
    library = "transformers" if repository.merged else "peft" if repository.adapter else "gguf"
    relation = {"transformers": "finetune", "peft": "adapter", "gguf": "quantized"}[library]
    method = ["sft"] if run.supervised else ["grpo", "reinforcement-learning"]
    tags = ["rsearch", "search-agent", *method, "arxiv:2506.08352"]
    results = eval_results(run)
    data = ModelCardData(
        **repository.licence,
        base_model=base,
        base_model_relation=relation if base else None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=[*tags, "lora"] if repository.adapter else tags,
        datasets=[run.dataset.hub_id] if run.dataset.hub_id else None,
        model_name=repository.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _check_metadata(card: str, run: RunFacts) -> None:
    """Read the metadata back with huggingface_hub's own classes.

    Raises:
        PublishError: They cannot be read, or results were lost.
    """
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(card).data
    except (ValueError, KeyError, TypeError) as error:
        raise PublishError(f"the card's metadata cannot be read back: {error}") from error
    if len(data.eval_results or ()) != len(eval_results(run)):
        raise PublishError("the card's model-index lost results when it was read back")


def _opening(repository: Repository) -> str:
    base, licence = repository.base, repository.licence
    name = escape_markdown(base.name)
    link = f"[{name}](https://huggingface.co/{base.hub_id})" if base.hub_id else name
    named = " (as stated by the publisher; the run used a local folder)"
    bundled = "; its weights are in `base/`"
    if licence["license"] == "unknown":
        terms = "unknown; no model card of the base was found"
    else:
        terms = f"{code_span(licence.get('license_name', licence['license']))}, from its model card"
    return (
        "A search agent: given a question, it thinks, writes a short plan of search queries, "
        "receives the results, and answers. Trained with "
        f"rsearch {__version__}; this card was generated from the training run's own records.\n\n"
        f"- **Base model:** {link}{named if base.named_by_user else ''}"
        f"{bundled if repository.bundles_base else ''}.\n"
        f"- **Licence of the base model:** {terms}.\n"
        f"- **Contents:** {_contents(repository)}."
    )


def _contents(repository: Repository) -> str:
    adapter = f"LoRA adapter of rank {repository.rank}"
    where = f" in `{repository.adapter_folder}/`" if repository.adapter_folder else ""
    parts = [
        adapter + where if repository.adapter else "",
        "merged weights" if repository.merged else "",
        f"GGUF ({code_span(repository.gguf)})" if repository.gguf else "",
    ]
    return ", ".join(filter(None, parts))


def _evaluation(run: RunFacts) -> str:
    table = evaluation_table(run)
    if not table:
        return "Not measured: the run's final evaluation did not complete."
    summary, recipe = run.summary, run.recipe
    after = summary["after"]
    return (
        f"{_recorded(after, 'n')} questions from the {code_span(summary['split'])} split of "
        f"{escape_markdown(run.dataset.name)}, the same before and after training.\n\n{table}\n\n"
        f"- **Intervals:** {describe_intervals(run)}.\n"
        f"- **Sources searched:** {escape_markdown(run.providers)}.\n"
        f"- **Passages per query:** {recipe.search.top_k}.\n"
        f"- **Judge:** {NO_JUDGE}, with normalisation `{recipe.reward.normalisation}`.\n"
        f"- **Failed searches after training:** {_recorded(after, 'failed_searches')} of "
        f"{_recorded(after, 'searches')}."
    )


def _data(run: RunFacts) -> str:
    dataset = run.dataset
    link = f" (https://huggingface.co/datasets/{dataset.hub_id})" if dataset.hub_id else ""
    description = run.summary.get("questions")
    # The description of a local file contains its path, which is not published.
    details = ""
    if description and "/" not in description:
        details = f" As recorded by the run: {escape_markdown(description)}."
    return (
        f"Questions: {escape_markdown(dataset.name)}{link}; trained on the "
        f"{code_span(run.recipe.questions.train_split)} split.{details}\n\n"
        f"Licence of the questions: {dataset.licence}."
    )


def _cost(run: RunFacts) -> str:
    environment = run.environment
    device = _recorded(environment, "device")
    memory = environment.get("device_memory_gb")
    threads = environment.get("cpu_threads")
    if device == "cpu":
        device = f"CPU, {_count(threads, 'thread')}" if threads else "CPU"
    steps, total_time = run.step_seconds, run.summary.get("seconds")
    services = {n: s for n, s in run.services.items() if s.usd or s.saved_usd}
    dollars = ", ".join(f"{escape_markdown(n)} ${s.usd:.4f}" for n, s in services.items())
    total = sum(s.usd for s in run.services.values())
    return (
        f"- **Hardware:** {device}{f', {memory:g} GB' if memory else ''}.\n"
        f"- **Time in training steps:** {_duration(steps)}"
        + (f"; {_duration(total_time)} in all since the last start or resume" if total_time else "")
        + ".\n"
        f"- **Paid services:** ${total:.4f}{f' ({dollars})' if dollars else ''}. "
        "Electricity and machine rental are not recorded."
    )


def _limitations(run: RunFacts, repository: Repository) -> str:
    after = run.summary.get("after") or {}
    points = [f"A single run with seed {run.recipe.seed}; variance across seeds was not measured."]
    if gains := insignificant_gains(run):
        points.append(
            f"No significant change in {', '.join(gains)}: the 95 % interval of the difference "
            "includes 0."
        )
    if weakest := weakest_types(run):
        kinds = escape_markdown(", ".join(weakest))
        points.append(f"Question types with the lowest exact match: {kinds}.")
    for key, what in (("plan_valid", "a valid plan"), ("format_valid", "a valid format")):
        if after.get(key) is not None and after[key] < 1:
            points.append(f"{1 - after[key]:.1%} of the greedy responses lack {what}.")
    if truncated := run.recent_mean("truncated"):
        points.append(
            f"{truncated:.1%} of the completions in the last training steps hit the token limit."
        )
    if after.get("failed_searches"):
        points.append(
            f"{_recorded(after, 'failed_searches')} of {_recorded(after, 'searches')} searches in "
            "the evaluation failed; the results above include them."
        )
    if run.four_bit and repository.merge:
        points.append(
            "Trained and evaluated on 4-bit weights but merged into full-precision ones, so the "
            "merged model differs slightly from the one evaluated."
        )
    if repository.merge:
        points.append(_describe_merge(repository.merge))
    if repository.gguf:
        points.append("The GGUF file was converted but not evaluated.")
    points += [
        "Evaluated with the sources above only; performance with other sources or corpora is "
        "unknown.",
        "Answers depend on what the search returns, and misleading passages can mislead the model.",
        "Not evaluated: other languages, harmful content, bias, and serving speed.",
    ]
    return "\n".join(f"- {point}" for point in points)


def _describe_merge(merge: MergeCheck) -> str:
    ties = f", {merge.ties} diverged at a near-tie between two tokens" if merge.ties else ""
    return (
        "Greedy continuations of the merged weights were compared with those of base and adapter "
        f"before upload: {merge.identical} of {merge.prompts} prompts were identical{ties}. The "
        "evaluation above used base and adapter."
    )


def _protocol(run: RunFacts) -> str:
    rules, rollout = run.recipe.protocol, run.recipe.rollout
    shape = (
        "<think> … </think>\n<search>\nNodes:\nA: query (Source)\nB: query (Source)\nEdges:\n"
        f"A -> B\n</search>\n<{rules.result_tag}> inserted by rsearch </{rules.result_tag}>\n"
        "<answer> … </answer>"
    )
    prompt, sources = system_prompt(run.recipe), escape_markdown(", ".join(rules.sources))
    examples = ""
    if rules.example_turns:
        examples = f", followed by {rules.example_turns} worked examples as earlier turns"
    return (
        f"{fenced(shape)}\n\nUp to {_count(rules.max_nodes, 'node')} per plan, "
        f"{_count(rules.max_query_words, 'word')} per query and "
        f"{_count(rollout.max_turns, 'plan')} per answer. Sources: {sources}. "
        "`A -> B` means that B runs after A and its query is expanded with A's results.\n\n"
        + (f"System prompt{examples}:\n\n{fenced(prompt)}" if prompt else "No system prompt.")
    )


def _recipe(run: RunFacts, base: BaseWeights) -> str:
    recipe = dump_document(public_recipe(run.recipe, base.hub_id))
    packages = run.environment.get("packages") or {}
    versions = escape_markdown(", ".join(f"{name} {v}" for name, v in packages.items() if v))
    return (
        "The settings needed to reproduce or use the agent, also in `recipe.yaml`. Addresses, "
        "paths, accounts and budgets of the run are left out.\n\n"
        f"<details><summary>recipe.yaml</summary>\n\n{fenced(recipe, 'yaml')}\n\n</details>\n\n"
        f"Package versions: {versions or 'not recorded'}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


def _recorded(facts: Mapping[str, Any], key: str) -> str:
    """Return a recorded value as Markdown text, or "not recorded"."""
    return escape_markdown(str(facts.get(key, "not recorded")))
