"""The model card's section on training: GRPO or supervised fine-tuning."""

from __future__ import annotations

from pathlib import Path

from rsearch_cli.publishing.allowed_files import PLOT
from rsearch_cli.publishing.facts import Repository, RunFacts
from rsearch_cli.terminal import code_span, escape_markdown

_PAPER = "R-Search (Shi and Shen, [arXiv 2506.08352](https://arxiv.org/abs/2506.08352))"


def describe_training(run: RunFacts, repository: Repository) -> str:
    """Return the section: the method, its settings as a list, and the reward plot."""
    recipe = run.recipe
    lora = recipe.policy.lora
    method, settings, rate = _supervised(run) if run.supervised else _reinforced(run)
    start = recipe.policy.adapter
    if start is not None:
        settings += [
            f"- **Started from:** the trained adapter {code_span(Path(start).name)}, whose own "
            "training is not recorded in this run."
        ]
    precision = "4 bits (NF4)" if run.four_bit else "16 bits or more"
    settings += [
        f"- **Adapter:** LoRA, rank {lora.r}, alpha {lora.alpha}, on "
        f"{escape_markdown(', '.join(lora.target_modules))}; learning rate {rate:g}.",
        f"- **Precision:** frozen weights in {precision}, computation in "
        f"{escape_markdown(run.dtype)}.",
        f"- **Seed:** {recipe.seed}.",
    ]
    if recipe.reward.shuffle_answers and not run.supervised:
        settings.append("- **Control run:** answer rewards were shuffled between completions.")
    plot = f"\n\n![Reward per optimiser step]({PLOT})" if repository.has_plot else ""
    return f"{method}\n\n" + "\n".join(settings) + plot


def _reinforced(run: RunFacts) -> tuple[str, list[str], float]:
    train, reward = run.recipe.train, run.recipe.reward
    weights, early = reward.weights, reward.curriculum_weights
    answer = {"f1": "token F1", "em": "exact match"}.get(
        reward.answer, f"graded by {code_span(reward.judge.model)}"
    )
    method = (
        f"{_PAPER}: GRPO ([arXiv 2402.03300](https://arxiv.org/abs/2402.03300)) on complete search "
        "trajectories. Search results are masked out of the loss."
    )
    settings = [
        f"- **Reward:** answer ({answer}), plan validity and format validity, weighted "
        f"{weights.answer:g} / {weights.plan:g} / {weights.format:g}, and "
        f"{early.answer:g} / {early.plan:g} / {early.format:g} in the first "
        f"{reward.curriculum_steps} steps.",
        f"- **Steps:** {run.steps} of {train.max_steps}, with "
        f"{train.batch_size * train.gradient_accumulation_steps} completions per step and "
        f"{train.num_generations} per question; loss `{train.loss_type}`, KL coefficient "
        f"{train.beta:g}.",
    ]
    return method, settings, train.learning_rate


def _supervised(run: RunFacts) -> tuple[str, list[str], float]:
    sft = run.recipe.sft
    traces = "the fictional world" if sft.traces == "world" else code_span(Path(sft.traces).name)
    taken = (run.summary.get("traces") or {}).get("taken", "an unrecorded number of")
    method = (
        f"Supervised fine-tuning on complete search trajectories in the protocol of {_PAPER}. "
        "Search results are masked out of the loss. This run contains no reinforcement learning."
    )
    settings = [
        f"- **Traces:** {escape_markdown(str(taken))}, from {traces}.",
        f"- **Steps:** {run.steps}, with "
        f"{sft.batch_size * sft.gradient_accumulation_steps} traces per step.",
    ]
    return method, settings, sft.learning_rate
