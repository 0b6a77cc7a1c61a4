"""A check that what is sampled comes from the model that is trained.

Place in the path: `train` runs it once, before the first step. Generation may go through kernels or
an engine of their own, and builds of these have left the adapter out without a word: such a run
looks healthy and learns nothing. On failure: `TrainingIneffective`; the adapter is put back first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rsearch_cli.errors import TrainingIneffective

PROMPT = [{"role": "user", "content": "Who wrote it?"}]
TOKENS = 8

NUDGE = 0.05
"""Added to every weight of every B matrix: a rough push, since it is taken back exactly."""

LEAST_CHANGE = 1e-4
"""In a log-probability; a generation without the adapter repeats itself bit by bit."""


class SampledPolicy(Protocol):
    """What the check needs of a policy (see `policy.local.LocalPolicy`)."""

    model: Any

    def encode_prompt(self, messages: list[dict[str, str]]) -> tuple[list[int], str]:
        """Ids of a rendered chat, and what its template has opened for the model."""
        ...

    def sample_log_probs(self, context: list[int], count: int) -> list[tuple[int, float]]:
        """Greedily sampled ids with their log-probabilities, from the path of generation."""
        ...


def check_adapter(policy: SampledPolicy) -> None:
    """Nudge the adapter, look whether sampled log-probabilities move, and put it back.

    Raises:
        TrainingIneffective: They do not, or there is no adapter.
    """
    context, _ = policy.encode_prompt(PROMPT)
    before = policy.sample_log_probs(context, TOKENS)
    with _nudged(policy.model):
        after = policy.sample_log_probs(context, TOKENS)
    if [token for token, _ in before] != [token for token, _ in after]:
        return
    change = max((abs(x - y) for (_, x), (_, y) in zip(before, after, strict=True)), default=0.0)
    if change < LEAST_CHANGE:
        raise TrainingIneffective(
            f"adapter check: with every LoRA B weight moved by {NUDGE}, the log-probabilities of "
            f"{len(before)} sampled tokens moved by {change:.1e} at most: generation leaves the "
            "adapter out, and training would learn nothing; use --set policy.backend=transformers, "
            "or another release of unsloth"
        )


@contextmanager
def _nudged(model: Any) -> Iterator[None]:
    import torch

    weights = [p for name, p in model.named_parameters() if "lora_B" in name]
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                weight.add_(NUDGE)
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
