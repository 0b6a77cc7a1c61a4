"""Memory of one decoder layer in the update: what is kept for the backward pass, and its peak.

The counts are those of Unsloth's functions run on fake tensors (`tests/unit/memory`), and for
transformers those of real allocations on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.memory.shape import ATTENTION, MLP, ModelShape, adapted_modules
from rsearch_cli.memory.workload import Workload
from rsearch_cli.recipe.policy import LoraConfig

_QKV = frozenset(ATTENTION[:3])
_MLP = frozenset(MLP)


@dataclass(frozen=True, slots=True)
class Layer:
    """Memory of one decoder layer for the passes over B x L tokens of one update.

    In the comments h, q, k and f are the widths of the residual stream, of all query heads, of all
    key heads, and inside the MLP.
    """

    shape: ModelShape
    workload: Workload
    lora: LoraConfig

    @property
    def tokens(self) -> int:
        """Tokens of one forward and backward pass."""
        return self.workload.update_rows * self.workload.row.total

    @property
    def unsloth(self) -> bool:
        """Whether Unsloth's functions compute the layer."""
        return self.workload.backend == "unsloth"

    @property
    def fused(self) -> frozenset[str]:
        """The modules whose adapter Unsloth computes together with the projection.

        That is q, k and v if all three have an adapter and no bias, o, and the MLP if all of its
        three have one (`FastLlamaModel.patch_peft_model`). PEFT computes the others.
        """
        adapted = frozenset(adapted_modules(self.lora))
        if not self.unsloth:
            return frozenset()
        fused = adapted & {"o_proj"}
        if adapted >= _QKV and not self.shape.qkv_bias:
            fused |= _QKV
        return fused | _MLP if adapted >= _MLP else fused

    def forward(self) -> float:
        """Return the bytes of a forward pass without gradients, at its peak in the MLP.

        Gate after its activation, up and their product (3 f), the residual stream, its norm and
        the sum of both (3 h). With dropout a fused MLP makes a copy of the product, the masks of
        its three inputs, and a second dequantised weight.
        """
        shape, stream = self.shape, self.workload.stream
        size = float(self.tokens * 3 * (shape.intermediate + shape.hidden) * stream)
        if self.fused >= _MLP and self.lora.dropout:
            size += self.tokens * (shape.intermediate * (stream + 1) + 2 * shape.hidden)
            size += self._second_weight()
        return size

    def kept(self) -> float:
        """Return the bytes kept from the forward to the backward pass by all layers.

        With checkpointing, each layer's input, which Unsloth moves to the CPU except for two
        buffers (`unsloth_zoo/gradient_checkpointing.py`) and the last layer's own. Otherwise
        everything that is saved.
        """
        if not self.workload.checkpointing:
            return self.shape.layers * (self._saved_outside_mlp() + self._saved_in_mlp())
        inputs = 3 if self.unsloth else self.shape.layers
        return float(inputs * self.tokens * self.shape.hidden * self.workload.stream)

    def in_backward(self) -> float:
        """Return the bytes added by the backward pass: the recomputed layer and its gradients.

        The peak is in the MLP, or in attention, when what the MLP had saved is free again.
        """
        recomputed = self.workload.checkpointing
        outside = self._saved_outside_mlp() if recomputed else 0.0
        inside = self._saved_in_mlp() if recomputed else 0.0
        return outside + max(inside + self._mlp_gradients(), self._attention_gradients())

    def _saved_outside_mlp(self) -> float:
        """Return the bytes that autograd saves outside the MLP.

        Unsloth: norms and residuals (4 h), queries after rotation and the output of attention
        (2 q), keys and values (2 k). Unfused: 6 h, 3 q, keys and values before and after rotation
        (4 k), repeated to all heads for attention (2 q).
        """
        shape = self.shape
        if self.unsloth:
            numbers = 4 * shape.hidden + 2 * shape.query_width + 2 * shape.kv_width
        else:
            numbers = 6 * shape.hidden + 5 * shape.query_width + 4 * shape.kv_width
        return float(self.tokens * (numbers * self.workload.stream + self._adapter_inputs()))

    def _saved_in_mlp(self) -> float:
        """Return the bytes saved in the MLP: gate, its activation and up (fused: gate and up)."""
        wide = 2 if self.fused >= _MLP else 3
        return float(self.tokens * wide * self.shape.intermediate * self.workload.stream)

    def _adapter_inputs(self) -> float:
        """Return the bytes per token that the adapter saves in addition to the layer.

        PEFT casts the input of each adapted module to the adapter's type and back to the compute
        type: a copy for each module. Where it need not be cast, only dropout makes a copy. Dropout
        also keeps a mask of one byte for each number, fused or not.
        """
        total = 0.0
        for module in adapted_modules(self.lora):
            width, _ = self.shape.linear(module)
            copied = module not in self.fused and (self.unsloth or self.lora.dropout > 0)
            total += width * (self.workload.width * copied + (self.lora.dropout > 0))
        return total

    def _mlp_gradients(self) -> float:
        """Return the bytes of the gradients that exist at once in the backward pass of the MLP.

        Unfused 3 f and 2 h. Fused 1 f and 1 h, because the others are written over what was saved;
        with dropout 3 f. Unsloth has a second weight dequantised there.
        """
        hidden = 1 if self.unsloth else 2
        wide = 1 if self.fused >= _MLP and not self.lora.dropout else 3
        numbers = hidden * self.shape.hidden + wide * self.shape.intermediate
        second = self._second_weight() if self.unsloth else 0.0
        return self.tokens * numbers * self.workload.stream + second

    def _second_weight(self) -> float:
        """Return the bytes of a weight of the MLP that is dequantised while another still is."""
        if not self.workload.four_bit:
            return 0.0
        return float(self.shape.intermediate * self.shape.hidden * self.workload.width)

    def _attention_gradients(self) -> float:
        """Return the bytes of the gradients that exist at once in the backward pass of attention.

        Of its output and of q, k and v, the float32 accumulator for q of flash attention, and with
        grouped queries k and v for each query head (`_flash_attention_backward` in PyTorch).
        """
        shape, stream = self.shape, self.workload.stream
        grouped = shape.heads != shape.kv_heads and self.unsloth
        queries = (4 if grouped else 2) * stream + 4
        numbers = shape.hidden * stream + shape.query_width * queries + 2 * shape.kv_width * stream
        return float(self.tokens * numbers)
