"""The formulas: bytes of each thing that lies on the card, and when it lies there.

Place in the path: `plan` adds them up. On failure: none but `PolicyError` for an adapter on a
module that the formulas do not know. Each formula names the source that it was read from, of
trl 1.14, transformers 5.17, peft 0.21, bitsandbytes 0.50 and unsloth 2026.10; B are rows, L tokens
of a row, and widths are those of `ModelShape`.
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
"""One after the other, never together: what one frees, the next one takes."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in NF4: 4 bits, an 8-bit scale for each 64 weights and, quantised twice, a
32-bit scale for each 256 of those (QLoRA, arXiv 2305.14314, section 3; bitsandbytes
`quantize_4bit`). Both back ends load with double quantisation."""

CONTEXT_BYTES = 0.7 * GIB
"""CUDA context, kernels of torch, Triton and bitsandbytes, workspace of cuBLAS: what a process
takes beside the allocator. An allowance, not a measurement."""

SLACK = 0.05
"""Share of all tensors that the caching allocator holds without using it. An allowance."""

UNSLOTH_CACHE_STEP = 513
"""Tokens that Unsloth's own cache has to spare when it is made (`alloc_decode_buffers` in its
`models/_decode_graphs.py`: `KV_CACHE_INCREMENT` and one); it grows by as many less one."""

UNSLOTH_CHUNK_LOGITS = 512 * 151_936
"""Logits that Unsloth's loss has at once, as long as that is less than a number for each number of
the hidden states (`fused_linear_rows` in `unsloth_zoo/fused_losses/fused_linear.py`)."""


@dataclass(frozen=True, slots=True)
class Component:
    """One thing on the card.

    Attributes:
        name: What it is, as a key.
        size: Bytes.
        phases: When it lies there: `always`, or some of `PHASES`.
    """

    name: str
    size: float
    phases: tuple[str, ...]


def list_parts(shape: ModelShape, load: Workload, lora: LoraConfig) -> tuple[Component, ...]:
    """All parts but the allocator's slack.

    Raises:
        PolicyError: The adapter sits on a module that the formulas do not know.
    """
    adapter, number = count_adapter(shape, lora), adapter_bytes(load)
    layer = Layer(shape, load, lora)
    return (
        Component("weights", weight_bytes(shape, load), (ALWAYS,)),
        Component("adapter", adapter * number, (ALWAYS,)),
        Component("gradients", adapter * number, (ALWAYS,)),
        # AdamW's two moments, in the type of the weights (torch.optim.AdamW).
        Component("optimiser", adapter * number * 2, (ALWAYS,)),
        Component("dequantised", dequantised_bytes(shape, load), (ALWAYS,)),
        Component("kv_cache", cache_bytes(shape, load), (ROLLOUT,)),
        Component("prefill", prefill_bytes(shape, load), (ROLLOUT,)),
        Component("layer_inputs", layer.kept(), (LOSS, BACKWARD)),
        Component("logits", logit_bytes(shape, load), (LOSS,)),
        Component("layer_recomputed", layer.in_backward(), (BACKWARD,)),
        Component("cuda", CONTEXT_BYTES, (ALWAYS,)),
    )


def weight_bytes(shape: ModelShape, load: Workload) -> float:
    """The frozen model.

    In 4 bit the projections alone are quantised; transformers leaves the head out, and embedding,
    norms and biases are no projections. PEFT then casts what is left to float32 (see `Load`).
    """
    rest = shape.embeddings + shape.small
    if not load.four_bit:
        return float((shape.projections + rest) * load.width)
    return shape.projections * NF4_BYTES + rest * load.stream


def count_adapter(shape: ModelShape, lora: LoraConfig) -> int:
    """Parameters of the adapter: two matrices of `r` rows or columns for each adapted module.

    Raises:
        PolicyError: A module is none of attention and MLP.
    """
    unknown = [m for m in adapted_modules(lora) if m not in ATTENTION + MLP]
    if unknown:
        raise PolicyError(
            f"policy.lora.target_modules: memory cannot be planned with an adapter on {unknown[0]};"
            f" known are {', '.join(ATTENTION + MLP)}"
        )
    return shape.layers * lora.r * sum(sum(shape.linear(m)) for m in adapted_modules(lora))


def adapter_bytes(load: Workload) -> int:
    """Bytes of one of the adapter's parameters.

    PEFT and Unsloth make them float32 over a 16-bit model; TRL's `GRPOTrainer` casts those of a
    quantised model to bfloat16, and Unsloth takes that cast out of it (`models/rl.py`).
    """
    return 2 if load.four_bit and load.backend == "transformers" else 4


def dequantised_bytes(shape: ModelShape, load: Workload) -> float:
    """The largest projection in 16 bit: both back ends dequantise one for each product."""
    if not load.four_bit:
        return 0.0
    widths = [shape.linear(module) for module in (*ATTENTION, *MLP)]
    return float(max(inner * outer for inner, outer in widths) * load.width)


def cache_bytes(shape: ModelShape, load: Workload) -> float:
    """Keys and values of all layers for the rows of a rollout, as long as they get.

    transformers' `DynamicCache` grows by concatenation: the layer that grows is there twice.
    Unsloth makes a cache of its own at the first token after the context; what its layers hold of
    the last rollout goes only as the next context is read.
    """
    length = load.row.total
    if load.backend == "unsloth":
        return key_value_bytes(shape, load, length + UNSLOTH_CACHE_STEP)
    return key_value_bytes(shape, load, length) * (load.caches + 1 / shape.layers)


def key_value_bytes(shape: ModelShape, load: Workload, length: int) -> float:
    """Keys and values of all layers for the rows of a rollout, of so many tokens each."""
    return float(load.rollout_rows * length * shape.layers * 2 * shape.kv_width * load.stream)


def prefill_bytes(shape: ModelShape, load: Workload) -> float:
    """What reading contexts of B x L tokens takes beside one cache, without gradients.

    At first that is the forward pass. Then, with Unsloth, it is the keys and values that the pass
    has left: they are copied into Unsloth's own cache, and transformers' `_sample` holds on to them
    (its `cache`) until the last token is written. The larger counts: the one goes before the other
    is made.
    """
    forward = forward_bytes(shape, load)
    if load.backend == "transformers":
        return forward
    return max(forward + mask_bytes(load), key_value_bytes(shape, load, load.row.total))


def forward_bytes(shape: ModelShape, load: Workload) -> float:
    """The widest moment of a forward pass over B x L tokens without gradients.

    That is the MLP: gate after its activation, up and their product, with the residual stream, its
    norm and their sum. The last position alone gets logits, in float32 with their softmax.
    """
    tokens = load.rollout_rows * load.row.total
    widest = 3 * shape.intermediate + 3 * shape.hidden
    return tokens * widest * load.stream + load.rollout_rows * shape.vocab * 8.0


def mask_bytes(load: Workload) -> float:
    """Unsloth's mask B x L x L, in the compute type, for rows that differ in length.

    One row alone is not padded, and needs none (`_prepare_4d_causal_attention_mask_for_sdpa`).
    """
    rows = load.rollout_rows
    return float(rows * load.row.total**2 * load.width) if rows > 1 else 0.0


def logit_bytes(shape: ModelShape, load: Workload) -> float:
    """Logits of the completion and what the loss makes of them, at their widest.

    TRL (`_full_logits_logps`): accelerate turns them into float32, and the gradient is as large:
    8 bytes each. A float32 head is cast to 16 bit for the product, and kept for the backward pass.
    Unsloth (`fused_linear_logprobs`) keeps none: a chunk of them is there at once, in float32 and
    overwritten by its own gradient, with the gradient of the hidden states before and after its
    scaling. The entropies that a mask of high-entropy tokens asks for come out of the same chunk.
    """
    tokens = load.update_rows * load.row.completion
    logits = tokens * shape.vocab
    if load.backend == "transformers":
        head = shape.vocab * shape.hidden * load.width if load.stream > load.width else 0
        return float(logits * 8 + head)
    hidden = tokens * shape.hidden
    return float(min(logits, max(UNSLOTH_CHUNK_LOGITS, hidden)) * 4 + 2 * hidden * load.width)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one decoder layer keeps for its backward pass, B x L tokens of one update."""

    shape: ModelShape
    load: Workload
    lora: LoraConfig

    @property
    def tokens(self) -> int:
        """Tokens of one forward and backward pass."""
        return self.load.update_rows * self.load.row.total

    def saved(self) -> float:
        """What autograd saves inside the layer.

        Norms and residuals (4 h; unfused 6 h), queries before and after rotation with the output
        of attention (3 q; with keys and values repeated to all heads 5 q), keys and values before
        and after rotation (4 k), gate, its activation and up (3 f).
        """
        shape, fused = self.shape, self.load.backend == "unsloth"
        numbers = (
            (4 if fused else 6) * shape.hidden
            + (3 if fused else 5) * shape.query_width
            + 4 * shape.kv_width
            + 3 * shape.intermediate
        )
        return self.tokens * numbers * self.load.stream + self.adapter_inputs()

    def adapter_inputs(self) -> float:
        """Inputs that the adapter saves for itself.

        PEFT drops out and saves one for each module, with a mask of a byte a number; without
        dropout it is the projection's own input. So it always is with Unsloth.
        """
        if self.load.backend == "unsloth" or not self.lora.dropout:
            return 0.0
        widths = [self.shape.linear(module)[0] for module in adapted_modules(self.lora)]
        return float(self.tokens * sum(widths) * (self.load.width + 1))

    def gradients(self) -> float:
        """Gradients that exist at once while the layer's MLP is gone through backwards."""
        return (
            self.tokens * (2 * self.shape.hidden + 3 * self.shape.intermediate) * self.load.stream
        )

    def kept(self) -> float:
        """What stays from the forward to the backward pass, of all layers.

        Checkpointed: each layer's input, which Unsloth moves to the CPU but for two buffers
        (`unsloth_zoo/gradient_checkpointing.py`) and the last layer's own. Else all that is saved.
        """
        if not self.load.checkpointing:
            return self.shape.layers * self.saved()
        inputs = 3 if self.load.backend == "unsloth" else self.shape.layers
        return float(inputs * self.tokens * self.shape.hidden * self.load.stream)

    def in_backward(self) -> float:
        """What the backward pass adds: the layer that is recomputed, and its gradients."""
        return self.gradients() + (self.saved() if self.load.checkpointing else 0.0)
