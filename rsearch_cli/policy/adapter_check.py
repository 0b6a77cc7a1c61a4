"""A check before training that what is sampled comes from the model that is trained.

Generation may run through its own kernels or engine, and some builds of these have silently left
the adapter out: such a run looks healthy and learns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rsearch_cli.errors import TrainingIneffective
from rsearch_cli.policy.local import LocalPolicy

PROMPT = [{"role": "user", "content": "Who wrote it?"}]
TOKENS = 8

PERTURBATION = 0.05
"""Added to every weight of every B matrix; the original values are restored exactly."""

LEAST_CHANGE = 1e-4
"""Smallest change of a log-probability that counts; without the adapter there is none at all."""


def check_adapter(policy: LocalPolicy) -> None:
    """Perturb the adapter, check that sampled log-probabilities change, and restore it.

    Raises:
        TrainingIneffective: They do not, or there is no adapter.
    """
    context = policy.render(PROMPT).token_ids
    before = policy.sample_log_probs(context, TOKENS)
    with _perturbed(policy.model):
        after = policy.sample_log_probs(context, TOKENS)
    if [token for token, _ in before] != [token for token, _ in after]:
        return
    change = max((abs(x - y) for (_, x), (_, y) in zip(before, after, strict=True)), default=0.0)
    if change < LEAST_CHANGE:
        raise TrainingIneffective(
            f"adapter check: changing every LoRA B weight by {PERTURBATION} changed the "
            f"log-probabilities of {len(before)} sampled tokens by {change:.1e} at most: "
            "generation ignores the adapter, and training would have no effect; use --set "
            "policy.backend=transformers, or another release of unsloth"
        )


@contextmanager
def _perturbed(model: Any) -> Iterator[None]:
    import torch

    weights = [p for name, p in model.named_parameters() if "lora_B" in name]
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                weight.add_(PERTURBATION)
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
