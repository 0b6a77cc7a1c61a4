"""How an agent was trained, for its card: reinforcement learning, or a supervised cold start.

Place in the path: the card's section on training, from the run's record alone. On failure: none;
what the run does not hold is said to be not recorded.
"""

from __future__ import annotations

from pathlib import Path

from rsearch_cli.publish.contents import Findings
from rsearch_cli.publish.record import RunRecord
from rsearch_cli.terminal import code_span, escape_markdown

CURVE = "reward.png"
_PAPER = "R-Search (Shi and Shen, [arXiv 2506.08352](https://arxiv.org/abs/2506.08352))"


def describe_training(record: RunRecord, findings: Findings) -> str:
    """The section: the method, then its settings as a list, then the reward curve."""
    recipe = record.recipe
    lora = recipe.policy.lora
    method, settings, rate = _supervised(record) if record.supervised else _reinforced(record)
    start = recipe.policy.adapter
    if start is not None:
        settings += [
            f"- **Started from:** the trained adapter {code_span(Path(start).name)}; how that one "
            "was trained, this run does not record."
        ]
    precision = "4 bit (NF4)" if record.four_bit else "16 bit or more"
    settings += [
        f"- **Adapter:** LoRA, rank {lora.r}, alpha {lora.alpha}, on "
        f"{escape_markdown(', '.join(lora.target_modules))}; learning rate {rate:g}.",
        f"- **Precision:** frozen weights in {precision}, computed in "
        f"{escape_markdown(record.dtype)}.",
        f"- **Seed:** {recipe.seed}.",
    ]
    if recipe.reward.shuffle_answers and not record.supervised:
        settings.append("- **This run is a control:** answer scores were dealt out at random.")
    picture = f"\n\n![Reward per optimiser step]({CURVE})" if findings.has_curve else ""
    return f"{method}\n\n" + "\n".join(settings) + picture


def _reinforced(record: RunRecord) -> tuple[str, list[str], float]:
    train, reward = record.recipe.train, record.recipe.reward
    weights, early = reward.weights, reward.curriculum_weights
    answer = {"f1": "token F1", "em": "exact match"}.get(
        reward.answer, f"the verdict of {code_span(reward.judge.model)}"
    )
    method = (
        f"{_PAPER}: GRPO ([arXiv 2402.03300](https://arxiv.org/abs/2402.03300)) on whole search "
        "trajectories; results that the system inserted get no gradient."
    )
    settings = [
        f"- **Reward:** answer ({answer}), plan validity and format validity, weighted "
        f"{weights.answer:g} / {weights.plan:g} / {weights.format:g}; in the first "
        f"{reward.curriculum_steps} steps {early.answer:g} / {early.plan:g} / {early.format:g}.",
        f"- **Steps:** {record.steps} of {train.max_steps}, each of "
        f"{train.batch_size * train.gradient_accumulation_steps} completions, "
        f"{train.num_generations} a question; loss `{train.loss_type}`, KL weight {train.beta:g}.",
    ]
    return method, settings, train.learning_rate


def _supervised(record: RunRecord) -> tuple[str, list[str], float]:
    sft = record.recipe.sft
    traces = "the fictional world" if sft.traces == "world" else code_span(Path(sft.traces).name)
    taken = (record.summary.get("traces") or {}).get("taken", "an unrecorded number of")
    method = (
        f"A supervised cold start in the protocol of {_PAPER}: the policy imitates whole search "
        "trajectories; results that the system inserted get no gradient. There was no "
        "reinforcement learning in this run."
    )
    settings = [
        f"- **Traces:** {escape_markdown(str(taken))}, from {traces}.",
        f"- **Steps:** {record.steps}, each of "
        f"{sft.batch_size * sft.gradient_accumulation_steps} traces.",
    ]
    return method, settings, sft.learning_rate
