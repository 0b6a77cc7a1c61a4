"""The model card: Hub metadata, and what a stranger needs to judge and use the agent.

The text is in `templates`; everything it says is derived from `facts`. Facts that the run did not
measure or record are listed as such.
"""

from __future__ import annotations

from rsearch_cli import __version__
from rsearch_cli.errors import PublishError
from rsearch_cli.policy.resolve import BASE
from rsearch_cli.protocol.prompt import build_messages, build_system_prompt
from rsearch_cli.publishing.allowed_files import PLOT
from rsearch_cli.publishing.card_evaluation import (
    METRICS,
    NO_JUDGE,
    describe_intervals,
    eval_results,
    insignificant_gains,
    weakest_types,
)
from rsearch_cli.publishing.card_template import render
from rsearch_cli.publishing.facts import Repository, RunFacts, public_recipe
from rsearch_cli.recipe.documents import dump_document
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.terminal import printable
from rsearch_cli.types import Question

# Ranks that vLLM accepts.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def write_card(run: RunFacts, repository: Repository) -> str:
    """Return the whole card: YAML metadata and Markdown.

    Raises:
        PublishError: huggingface_hub cannot read the metadata back unchanged.
    """
    packages = run.environment.get("packages") or {}
    body = render(
        "card.md.jinja",
        version=__version__,
        run=run,
        recipe=run.recipe,
        summary=run.summary,
        dataset=run.dataset,
        repository=repository,
        base=repository.base,
        licence=repository.licence,
        usage=describe_usage(repository, run.recipe),
        metrics=METRICS,
        intervals=describe_intervals(run),
        no_judge=NO_JUDGE,
        insignificant_gains=insignificant_gains(run),
        weakest_types=weakest_types(run),
        truncated=run.recent_mean("truncated"),
        plot=PLOT,
        system_prompt=system_prompt(run.recipe),
        public_recipe=dump_document(public_recipe(run.recipe, repository.base.hub_id)),
        packages=", ".join(f"{name} {version}" for name, version in packages.items() if version),
    )
    card = printable(f"---\n{_metadata(run, repository)}\n---\n\n{body}\n")
    _check_metadata(card, run)
    return card


def describe_usage(repository: Repository, recipe: Recipe) -> str:
    """Return how to use the agent with rsearch, transformers and PEFT, vLLM and llama.cpp.

    A test executes the code in it.
    """
    prompt = system_prompt(recipe)
    system = '{"role": "system", "content": SYSTEM_PROMPT}, ' if prompt else ""
    chat = f'[{system}{{"role": "user", "content": "YOUR QUESTION"}}]'
    if recipe.protocol.example_turns:
        question = Question("", "YOUR QUESTION", ())
        asked = build_messages(question, recipe.protocol, recipe.rollout.max_turns)
        chat = dump_json(asked, indent=1)
    return render(
        "usage.md.jinja",
        repository=repository,
        recipe=recipe,
        system_prompt=prompt,
        chat=chat,
        base_folder=BASE,
        max_rank=next((r for r in _VLLM_RANKS if r >= repository.rank), repository.rank),
    )


def system_prompt(recipe: Recipe) -> str:
    """Return the run's system prompt; "" if it used no system message."""
    given = recipe.protocol.system_prompt
    if given is not None:
        return given
    return build_system_prompt(recipe.protocol, recipe.rollout.max_turns)


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
