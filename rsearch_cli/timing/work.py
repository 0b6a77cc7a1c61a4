"""What the passes of a model cost: launches, operations of products, and bytes to move.

B is rows and L is tokens per row; a multiplication with addition counts as two operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.memory.components import weight_bytes
from rsearch_cli.memory.shape import ModelShape
from rsearch_cli.memory.workload import Workload
from rsearch_cli.timing.devices import LAUNCH_SECONDS, Device

EFFICIENCY = 0.6
"""Share of a device's peak that large products reach. An allowance: library kernels reach 60 to
80 % on shapes of this size."""

DECODE, READ, UPDATE = 281, 182, 902
"""Launches of a layer for one token of every row, for a pass over contexts, and for an update
(forward, recomputed and backward), with Unsloth in 4 bit. Counted as torch and Triton dispatch
them, with the functions of `tests/unit/memory/unsloth_memory.py`."""

SLOWER = {"unsloth": 1.0, "transformers": 2.2}
"""Launches relative to Unsloth's: transformers with PEFT and bitsandbytes took 2.2 times as long
for a token on the same H200."""

FEW_ROWS = 4
"""Rows up to which Unsloth multiplies NF4 weights as they are; for more, each is dequantised."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one pass, or of several.

    Attributes:
        launches: Operations that the host starts.
        flops: Operations of products.
        moved: Bytes read and written.
        overlaps: Whether the host prepares the next launches while the device computes.
    """

    launches: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    overlaps: bool = True

    def seconds(self, device: Device) -> float:
        """Return how long the work takes on a device."""
        host = self.launches * LAUNCH_SECONDS
        computing = self.flops / (device.flops * EFFICIENCY)
        moving = self.moved / device.bandwidth
        if device.queues and self.overlaps:
            return max(host, computing, moving)
        return host + computing + moving


def decode(shape: ModelShape, workload: Workload, rows: float, context: float) -> Work:
    """Return the work of one token for each of B rows behind contexts of L tokens.

    All weights are read, and the keys and values of every row.
    """
    weights = weight_bytes(shape, workload)
    if workload.four_bit and rows > FEW_ROWS:
        # Written in 16 bit, and read again by the product.
        weights += 2 * shape.projections * workload.width
    cache = rows * context * shape.layers * 2 * shape.kv_width * workload.stream
    flops = 2 * rows * (shape.projections + shape.vocab * shape.hidden)
    launches = shape.layers * DECODE * SLOWER[workload.backend]
    return Work(launches, flops, weights + cache)


def read_contexts(shape: ModelShape, workload: Workload, rows: float, tokens: float) -> Work:
    """Return the work of a forward pass over B x L tokens, with logits of the last one."""
    launches = shape.layers * READ * SLOWER[workload.backend]
    flops = rows * (2 * tokens * shape.projections + attention_flops(shape, tokens))
    return Work(launches, flops, pass_bytes(shape, workload, rows * tokens), overlaps=False)


def update(shape: ModelShape, workload: Workload, rows: float, prompt: float, after: float) -> Work:
    """Return the work of forward and backward pass over B rows.

    The frozen weights get no gradient: one product forward, one backward, and one more to
    recompute the layer with checkpointing. Only the completion has logits.

    Args:
        shape: The model's dimensions.
        workload: Back end, types and checkpointing.
        rows: Rows of a forward pass.
        prompt: Tokens of the prompt.
        after: Tokens after it.
    """
    passes = 3 if workload.checkpointing else 2
    tokens = prompt + after
    # The backward pass of attention computes five products where the forward pass computes two.
    attention = attention_flops(shape, tokens) * (passes - 1 + 2.5)
    head = 2 * 2 * after * shape.vocab * shape.hidden
    flops = rows * (2 * passes * tokens * shape.projections + attention + head)
    launches = shape.layers * UPDATE * SLOWER[workload.backend]
    moved = passes * pass_bytes(shape, workload, rows * tokens)
    return Work(launches, flops, moved, overlaps=False)


def attention_flops(shape: ModelShape, tokens: float) -> float:
    """Return the operations of causal attention over one row: two products of L x L / 2."""
    return 2 * tokens**2 * shape.query_width * shape.layers


def pass_bytes(shape: ModelShape, workload: Workload, tokens: float) -> float:
    """Return the bytes that a pass moves: weights, dequantised ones, and activations.

    About ten tensors of the residual stream's width and eight of the MLP's are written and read in
    each layer.
    """
    weights = weight_bytes(shape, workload)
    if workload.four_bit:
        weights += 2 * shape.projections * workload.width
    widths = 10 * shape.hidden + 8 * shape.intermediate
    return weights + 2 * tokens * shape.layers * widths * workload.stream
