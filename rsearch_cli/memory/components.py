"""Formulas: the size in bytes of each component of GPU memory, and the phases it exists in.

Each formula names its source in trl 1.14, transformers 5.17, peft 0.21, bitsandbytes 0.50 or
unsloth 2026.10. B is rows, L is tokens per row, and widths are those of `ModelShape`.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.errors import PolicyError
from rsearch_cli.memory.engines import row_bytes, served_weight_bytes, vllm_bytes
from rsearch_cli.memory.layer import Layer
from rsearch_cli.memory.shape import ATTENTION, MLP, ModelShape, adapted_modules
from rsearch_cli.memory.units import GIB
from rsearch_cli.memory.workload import Workload
from rsearch_cli.recipe.policy import LoraConfig

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
class Card:
    """The card that trains.

    Attributes:
        vram_gb: Its memory in GB of 2^30 bytes; None if it is not known.
        has_server: Whether the vLLM server of `vllm-server` runs on it too.
    """

    vram_gb: float | None = None
    has_server: bool = False


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
    shape: ModelShape, workload: Workload, lora: LoraConfig, card: Card
) -> tuple[Component, ...]:
    """Return all components except the allocator's slack.

    Args:
        shape: The model's dimensions.
        workload: Rows, their lengths, and the engine that generates.
        lora: The adapter.
        card: The card that trains.

    Raises:
        PolicyError: The adapter is on a module that the formulas do not cover.
    """
    return (
        *_list_resident(shape, workload, lora),
        *_list_rollout(shape, workload, card),
        *_list_update(shape, workload, lora),
        Component("cuda", CONTEXT_BYTES, (ALWAYS,)),
    )


def _list_resident(
    shape: ModelShape, workload: Workload, lora: LoraConfig
) -> tuple[Component, ...]:
    """Components that outlast a step, and the gradients, which the optimiser frees."""
    adapter = count_adapter(shape, lora) * adapter_bytes(workload)
    # vLLM in the training process shares the weights, and counts them in its own share.
    shared = workload.engine == "vllm"
    weights = () if shared else (Component("weights", weight_bytes(shape, workload), (ALWAYS,)),)
    return (
        *weights,
        Component("adapter", adapter, (ALWAYS,)),
        Component("gradients", adapter, (LOSS, BACKWARD)),
        # AdamW's two moments, in the type of the weights (torch.optim.AdamW).
        Component("optimiser", adapter * 2, (ALWAYS,)),
        Component("positions", position_bytes(shape, workload), (ALWAYS,)),
        Component("dequantised", dequantised_bytes(shape, workload), (ALWAYS,)),
    )


def _list_rollout(shape: ModelShape, workload: Workload, card: Card) -> tuple[Component, ...]:
    """Components of generation on this card: with vLLM they stay while the card trains."""
    if workload.engine == "vllm":
        size = engine_bytes(shape, workload)
        if card.vram_gb is not None:
            size = workload.vllm_share * card.vram_gb * GIB
        return (Component("vllm", size, (ALWAYS,)),)
    if workload.engine == "vllm-server":
        if not card.has_server:
            return ()
        return (Component("vllm_server", engine_bytes(shape, workload), (ALWAYS,)),)
    return (
        Component("kv_cache", cache_bytes(shape, workload), (ROLLOUT,)),
        Component("prefill", prefill_bytes(shape, workload), (ROLLOUT,)),
    )


def engine_bytes(shape: ModelShape, workload: Workload, rows: int | None = None) -> float:
    """Return the bytes that vLLM needs for rows of the maximum length.

    In the training process it reads the weights that are trained on; a server, which is a process
    of its own, holds the base model in 16 bit.

    Args:
        shape: The model's dimensions.
        workload: The engine, and the rows.
        rows: Rows at once; None takes all that a rollout may generate at once.
    """
    rows = workload.rollout_rows if rows is None else rows
    held = rows * row_bytes(shape, workload)
    if workload.engine == "vllm":
        return vllm_bytes(shape, weight_bytes(shape, workload)) + held
    return vllm_bytes(shape, served_weight_bytes(shape)) + held + CONTEXT_BYTES


def _list_update(shape: ModelShape, workload: Workload, lora: LoraConfig) -> tuple[Component, ...]:
    """Components of the forward pass, the loss and the backward pass."""
    layer = Layer(shape, workload, lora)
    forward = layer.forward()
    if workload.engine == "local" and workload.backend == "unsloth":
        # Each layer frees the keys and values of the last rollout when it is next computed.
        forward += cache_bytes(shape, workload) * (1 - 1 / shape.layers)
    return (
        Component("layer_inputs", layer.kept(), (LOSS, BACKWARD)),
        # The forward pass is over when the loss is computed: the larger of both counts.
        Component("forward_and_loss", max(forward, logit_bytes(shape, workload)), (LOSS,)),
        Component("layer_recomputed", layer.in_backward(), (BACKWARD,)),
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


def position_bytes(shape: ModelShape, workload: Workload) -> float:
    """Return the bytes of Unsloth's table of cosines and sines, one row for each position.

    It is as long as the model's config says, since generation gives positions; transformers
    computes those of a batch (`LlamaModel_fast_forward` in unsloth's `models/llama.py`).
    """
    if workload.backend == "transformers":
        return 0.0
    return float(2 * shape.positions * shape.head_dim * workload.width)


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
    norm and their sum. The output of the embedding lives until the last layer with Unsloth, and in
    transformers it is the residual stream of the first. Only the last position has logits, in
    float32 with their softmax.
    """
    tokens = workload.rollout_rows * workload.row.total
    hidden = 4 if workload.backend == "unsloth" else 3
    widest = 3 * shape.intermediate + hidden * shape.hidden
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
