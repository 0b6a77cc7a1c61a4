"""Formulas: the size in bytes of each component of GPU memory, and the phases it exists in.

Each formula names its source in trl 1.14, transformers 5.17, peft 0.21, bitsandbytes 0.50 or
unsloth 2026.10. B is rows, L is tokens per row, and widths are those of `ModelShape`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.errors import PolicyError
from rsearch_cli.memory.shape import ATTENTION, MLP, ModelShape, adapted_modules
from rsearch_cli.memory.workload import Workload
from rsearch_cli.recipe.policy import LoraConfig

GIB = 2**30

ALWAYS, ROLLOUT, LOSS, BACKWARD = "always", "rollout", "loss", "backward"
PHASES = (ROLLOUT, LOSS, BACKWARD)
"""Phases of a step, one after the other: memory that one frees is used by the next."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight in NF4: 4 bits, an 8-bit scale per 64 weights and, with double quantisation, a
32-bit scale per 256 of those (QLoRA, arXiv 2305.14314, section 3; bitsandbytes
`quantize_4bit`). Both back ends load with double quantisation."""

CONTEXT_BYTES = 0.7 * GIB
"""CUDA context, kernels of torch, Triton and bitsandbytes, workspace of cuBLAS: the memory of a
process outside the allocator. An allowance, not a measurement."""

SLACK = 0.05
"""Memory that the caching allocator reserves unused, as a share of all tensors. An allowance."""

UNSLOTH_CACHE_STEP = 513
"""Spare tokens of Unsloth's own cache when it is allocated (`alloc_decode_buffers` in its
`models/_decode_graphs.py`: `KV_CACHE_INCREMENT` and one); it grows by one less."""

UNSLOTH_CHUNK_LOGITS = 512 * 151_936
"""Logits that Unsloth's loss computes at once, unless the hidden states have more numbers
(`fused_linear_rows` in `unsloth_zoo/fused_losses/fused_linear.py`)."""


@dataclass(frozen=True, slots=True)
class Component:
    """One component of GPU memory.

    Attributes:
        name: Its key.
        size: Bytes.
        phases: When it exists: `always`, or some of `PHASES`.
    """

    name: str
    size: float
    phases: tuple[str, ...]


def list_components(
    shape: ModelShape, workload: Workload, lora: LoraConfig
) -> tuple[Component, ...]:
    """Return all components except the allocator's slack.

    Raises:
        PolicyError: The adapter is on a module that the formulas do not cover.
    """
    adapter, number = count_adapter(shape, lora), adapter_bytes(workload)
    layer = Layer(shape, workload, lora)
    return (
        Component("weights", weight_bytes(shape, workload), (ALWAYS,)),
        Component("adapter", adapter * number, (ALWAYS,)),
        Component("gradients", adapter * number, (ALWAYS,)),
        # AdamW's two moments, in the type of the weights (torch.optim.AdamW).
        Component("optimiser", adapter * number * 2, (ALWAYS,)),
        Component("dequantised", dequantised_bytes(shape, workload), (ALWAYS,)),
        Component("kv_cache", cache_bytes(shape, workload), (ROLLOUT,)),
        Component("prefill", prefill_bytes(shape, workload), (ROLLOUT,)),
        Component("layer_inputs", layer.kept(), (LOSS, BACKWARD)),
        Component("logits", logit_bytes(shape, workload), (LOSS,)),
        Component("layer_recomputed", layer.in_backward(), (BACKWARD,)),
        Component("cuda", CONTEXT_BYTES, (ALWAYS,)),
    )


def weight_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the bytes of the frozen model.

    In 4 bit only the projections are quantised: transformers excludes the head, and embedding,
    norms and biases are not projections. PEFT casts the rest to float32 (see `Workload.stream`).
    """
    rest = shape.embeddings + shape.small
    if not workload.four_bit:
        return float((shape.projections + rest) * workload.width)
    return shape.projections * NF4_BYTES + rest * workload.stream


def count_adapter(shape: ModelShape, lora: LoraConfig) -> int:
    """Return the parameters of the adapter: two matrices of rank `r` for each adapted module.

    Raises:
        PolicyError: A module belongs neither to attention nor to the MLP.
    """
    unknown = [m for m in adapted_modules(lora) if m not in ATTENTION + MLP]
    if unknown:
        raise PolicyError(
            "policy.lora.target_modules: memory cannot be predicted with an adapter on "
            f"{unknown[0]}; known modules: {', '.join(ATTENTION + MLP)}"
        )
    return shape.layers * lora.r * sum(sum(shape.linear(m)) for m in adapted_modules(lora))


def adapter_bytes(workload: Workload) -> int:
    """Return the bytes per parameter of the adapter.

    PEFT and Unsloth use float32 over a 16-bit model; TRL's `GRPOTrainer` casts the adapter of a
    quantised model to bfloat16, and Unsloth removes that cast (`models/rl.py`).
    """
    return 2 if workload.four_bit and workload.backend == "transformers" else 4


def dequantised_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the bytes of the largest projection in 16 bit, dequantised for each product."""
    if not workload.four_bit:
        return 0.0
    widths = [shape.linear(module) for module in (*ATTENTION, *MLP)]
    return float(max(inner * outer for inner, outer in widths) * workload.width)


def cache_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the bytes of the keys and values of all layers for rows of the maximum length.

    transformers' `DynamicCache` grows by concatenation: the growing layer exists twice. Unsloth
    allocates its own cache at the first token after the context; its layers keep the one of the
    last rollout until the next context is processed.
    """
    length = workload.row.total
    if workload.backend == "unsloth":
        return key_value_bytes(shape, workload, length + UNSLOTH_CACHE_STEP)
    return key_value_bytes(shape, workload, length) * (workload.caches + 1 / shape.layers)


def key_value_bytes(shape: ModelShape, workload: Workload, length: int) -> float:
    """Return the bytes of the keys and values of all layers for rollout rows of `length` tokens."""
    return float(
        workload.rollout_rows * length * shape.layers * 2 * shape.kv_width * workload.stream
    )


def prefill_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the bytes that processing contexts of B x L tokens needs in addition to one cache.

    First that is the forward pass. Then, with Unsloth, it is the keys and values of that pass: they
    are copied into Unsloth's own cache, and transformers' `_sample` keeps them (its `cache`) until
    the last token. The larger counts, because the first is freed before the second is allocated.
    """
    forward = forward_bytes(shape, workload)
    if workload.backend == "transformers":
        return forward
    return max(forward + mask_bytes(workload), key_value_bytes(shape, workload, workload.row.total))


def forward_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the peak of a forward pass over B x L tokens without gradients.

    That is the MLP: gate after its activation, up and their product, with the residual stream, its
    norm and their sum. Only the last position has logits, in float32 with their softmax.
    """
    tokens = workload.rollout_rows * workload.row.total
    widest = 3 * shape.intermediate + 3 * shape.hidden
    return tokens * widest * workload.stream + workload.rollout_rows * shape.vocab * 8.0


def mask_bytes(workload: Workload) -> float:
    """Return the bytes of Unsloth's mask B x L x L, in the compute type, for padded rows.

    A single row is not padded and needs none (`_prepare_4d_causal_attention_mask_for_sdpa`).
    """
    rows = workload.rollout_rows
    return float(rows * workload.row.total**2 * workload.width) if rows > 1 else 0.0


def logit_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the peak bytes of the completion's logits and of the loss on them.

    TRL (`_full_logits_logps`): accelerate converts them to float32, and the gradient is as large:
    8 bytes each. A float32 head is cast to 16 bit for the product and kept for the backward pass.
    Unsloth (`fused_linear_logprobs`) keeps none: one chunk exists at a time, in float32 and
    overwritten by its own gradient, with the gradient of the hidden states before and after its
    scaling. The token entropies are computed from the same chunk.
    """
    tokens = workload.update_rows * workload.row.completion
    logits = tokens * shape.vocab
    if workload.backend == "transformers":
        head = (
            shape.vocab * shape.hidden * workload.width if workload.stream > workload.width else 0
        )
        return float(logits * 8 + head)
    hidden = tokens * shape.hidden
    return float(min(logits, max(UNSLOTH_CHUNK_LOGITS, hidden)) * 4 + 2 * hidden * workload.width)


@dataclass(frozen=True, slots=True)
class Layer:
    """Memory of one decoder layer for the backward pass over B x L tokens of one update."""

    shape: ModelShape
    workload: Workload
    lora: LoraConfig

    @property
    def tokens(self) -> int:
        """Tokens of one forward and backward pass."""
        return self.workload.update_rows * self.workload.row.total

    def saved(self) -> float:
        """Return the bytes that autograd saves inside the layer.

        Norms and residuals (4 h; unfused 6 h), queries before and after rotation with the output
        of attention (3 q; with keys and values repeated to all heads 5 q), keys and values before
        and after rotation (4 k), gate, its activation and up (3 f).
        """
        shape, fused = self.shape, self.workload.backend == "unsloth"
        numbers = (
            (4 if fused else 6) * shape.hidden
            + (3 if fused else 5) * shape.query_width
            + 4 * shape.kv_width
            + 3 * shape.intermediate
        )
        return self.tokens * numbers * self.workload.stream + self.adapter_inputs()

    def adapter_inputs(self) -> float:
        """Return the bytes of the inputs that the adapter saves separately.

        With dropout, PEFT saves one input for each module, with a mask of one byte per number.
        Without dropout, and always with Unsloth, it is the projection's own input.
        """
        if self.workload.backend == "unsloth" or not self.lora.dropout:
            return 0.0
        widths = [self.shape.linear(module)[0] for module in adapted_modules(self.lora)]
        return float(self.tokens * sum(widths) * (self.workload.width + 1))

    def gradients(self) -> float:
        """Return the bytes of the gradients that exist at once in the backward pass of the MLP."""
        return (
            self.tokens
            * (2 * self.shape.hidden + 3 * self.shape.intermediate)
            * self.workload.stream
        )

    def kept(self) -> float:
        """Return the bytes kept from the forward to the backward pass by all layers.

        With checkpointing, each layer's input, which Unsloth moves to the CPU except for two
        buffers (`unsloth_zoo/gradient_checkpointing.py`) and the last layer's own. Otherwise
        everything that is saved.
        """
        if not self.workload.checkpointing:
            return self.shape.layers * self.saved()
        inputs = 3 if self.workload.backend == "unsloth" else self.shape.layers
        return float(inputs * self.tokens * self.shape.hidden * self.workload.stream)

    def in_backward(self) -> float:
        """Return the bytes added by the backward pass: the recomputed layer and its gradients."""
        return self.gradients() + (self.saved() if self.workload.checkpointing else 0.0)
