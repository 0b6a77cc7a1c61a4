"""GPU memory that vLLM needs to generate rollouts, in the training process or as a server."""

from __future__ import annotations

from rsearch_cli.memory.shape import ModelShape
from rsearch_cli.memory.units import GIB
from rsearch_cli.memory.workload import Workload

BATCHED_TOKENS = 8192
"""Tokens of one pass that vLLM reserves memory for (its `max_num_batched_tokens`). An allowance, as
the default depends on the card and the release."""

GRAPHS = 172
"""CUDA graphs that vLLM captures with LoRA. Unsloth allows 4 bytes x hidden x layers for each, from
0.15 to 1 GB in all (`approximate_vllm_memory_usage` in `unsloth_zoo/vllm_utils.py`)."""


def vllm_bytes(shape: ModelShape, weights: float) -> float:
    """Return the bytes that vLLM needs in addition to keys and values.

    Args:
        shape: The model's dimensions.
        weights: Bytes of the weights that it reads.
    """
    graphs = min(max(GRAPHS * shape.hidden * shape.layers * 4, 0.15 * GIB), GIB)
    # The widest tensors of a pass: those of the MLP and of the residual stream.
    activations = BATCHED_TOKENS * 3 * (shape.intermediate + shape.hidden) * 2
    return weights + activations + graphs


def row_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the bytes of the keys and values of the longest row, in 16 bit.

    vLLM allocates them in blocks of a few tokens, so nothing is held in reserve for a row.
    """
    return float(workload.row.total * shape.layers * 2 * shape.kv_width * 2)


def served_weight_bytes(shape: ModelShape) -> float:
    """Return the bytes of the weights of a server, which holds the base model in 16 bit."""
    return float(shape.parameters * 2)
