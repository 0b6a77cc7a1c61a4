"""The dimensions of a model, read from its config.json without the training stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import PolicyError
from rsearch_cli.recipe.policy import ALL_LINEAR, LoraConfig
from rsearch_cli.runs.json_text import read_json_object

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

_WITH_BIAS = frozenset({"qwen2"})
"""Model types whose q, k and v projections have a bias that is not in the config."""

_REQUIRED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of a dense decoder (the Llama and Qwen2 family).

    Attributes:
        hidden: Width of the residual stream.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads; fewer than `heads` with grouped queries.
        intermediate: Width inside the MLP.
        vocab: Rows of the embedding, including padding.
        head_dim: Width of one head.
        tied: Whether the output head is the embedding.
        qkv_bias: Whether q, k and v have a bias.
        positions: Positions that the model was made for.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    head_dim: int
    tied: bool
    qkv_bias: bool
    positions: int

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads together; that of the values is the same."""
        return self.kv_heads * self.head_dim

    def linear(self, module: str) -> tuple[int, int]:
        """Return the `(in, out)` widths of a projection by its name in the model.

        Raises:
            KeyError: The family has no projection of this name.
        """
        return {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.kv_width),
            "v_proj": (self.hidden, self.kv_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }[module]

    @property
    def projections(self) -> int:
        """Parameters of all projections, which 4-bit loading quantises."""
        widths = [self.linear(module) for module in (*ATTENTION, *MLP)]
        return self.layers * sum(inner * outer for inner, outer in widths)

    @property
    def embeddings(self) -> int:
        """Parameters of embedding and output head; a single matrix if they are tied."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def small(self) -> int:
        """Parameters of norms and biases, which are never quantised."""
        bias = self.query_width + 2 * self.kv_width if self.qkv_bias else 0
        return self.layers * (2 * self.hidden + bias) + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, as the model card counts them."""
        return self.projections + self.embeddings + self.small


def _qwen2(
    hidden: int,
    layers: int,
    heads: int,
    kv: int,
    mlp: int,
    vocab: int,
    positions: int,
    *,
    tied: bool,
) -> ModelShape:
    head = hidden // heads
    return ModelShape(hidden, layers, heads, kv, mlp, vocab, head, tied, True, positions)


KNOWN: Mapping[str, ModelShape] = {
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen2(896, 24, 14, 2, 4864, 151936, 32768, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen2(1536, 28, 12, 2, 8960, 151936, 32768, tied=True),
    "Qwen/Qwen2.5-3B-Instruct": _qwen2(2048, 36, 16, 2, 11008, 151936, 32768, tied=True),
    "Qwen/Qwen2.5-7B-Instruct": _qwen2(3584, 28, 28, 4, 18944, 152064, 32768, tied=False),
    "Qwen/Qwen2.5-14B-Instruct": _qwen2(5120, 48, 40, 8, 13824, 152064, 32768, tied=False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _qwen2(
        1536, 28, 12, 2, 8960, 151936, 131072, tied=False
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _qwen2(
        3584, 28, 28, 4, 18944, 152064, 131072, tied=False
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": _qwen2(
        5120, 48, 40, 8, 13824, 152064, 131072, tied=False
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ModelShape(
        576, 30, 9, 3, 1536, 49152, 64, tied=True, qkv_bias=False, positions=8192
    ),
}
"""Dimensions of the models that recipes name, from their config.json on the Hub, so that an
estimate needs no download; a test compares them with the parameter counts of the model cards."""


def adapted_modules(lora: LoraConfig) -> list[str]:
    """Return the names of the modules of a dense decoder that get an adapter."""
    return [*ATTENTION, *MLP] if lora.target_modules == ALL_LINEAR else lora.target_modules


def find_shape(model: str) -> ModelShape:
    """Return the dimensions of a model.

    Args:
        model: A folder with a config.json, or a Hub id, which is looked up in `KNOWN` and then in
            the Hub's cache on this machine.

    Raises:
        PolicyError: The config is not on this machine, cannot be read, or is of another type.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return read_shape(folder / "config.json")
    if model in KNOWN:
        return KNOWN[model]
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    if isinstance(cached, str):
        return read_shape(Path(cached))
    raise PolicyError(
        f"policy.model: the memory of {model} cannot be predicted, because its config.json is not "
        "on this machine; use a model folder, or download it with: "
        f"hf download {model} config.json"
    )


def read_shape(path: Path) -> ModelShape:
    """Return the dimensions in a config.json.

    Raises:
        PolicyError: It cannot be read, or is not that of a dense decoder.
    """
    try:
        config = read_json_object(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PolicyError(f"policy.model: {path} cannot be read: {reason}") from error
    inner = config.get("text_config", config)
    config = inner if isinstance(inner, dict) else {}
    missing = [key for key in _REQUIRED if not isinstance(config.get(key), int)]
    if missing or any(config.get(key) for key in _EXPERTS):
        why = f"it has no {missing[0]}" if missing else "it is a mixture of experts"
        raise PolicyError(
            f"policy.model: the memory of {path.parent} cannot be predicted: {why}; only dense "
            "decoders such as Llama and Qwen2 are supported"
        )
    return _from_config(config)


def _from_config(config: Mapping[str, Any]) -> ModelShape:
    heads = config["num_attention_heads"]
    return ModelShape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=config.get("model_type") in _WITH_BIAS
        or bool(config.get("attention_bias", False)),
        positions=config.get("max_position_embeddings") or 0,
    )
