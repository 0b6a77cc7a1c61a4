"""Load and run weights with transformers and PEFT, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rsearch_cli.distributed import local_rank
from rsearch_cli.errors import PolicyError
from rsearch_cli.recipe.policy import PolicyConfig


def load_model(path: str, recipe: PolicyConfig, seed: int) -> Any:
    """Load a PEFT model, with a fresh adapter that has no effect yet."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    on_cuda = torch.cuda.is_available()
    dtype = getattr(torch, compute_dtype(recipe))
    four_bit = recipe.load_in_4bit if recipe.load_in_4bit is not None else on_cuda
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        path,
        trust_remote_code=recipe.trust_remote_code,
        dtype=dtype,
        quantization_config=quantisation if four_bit else None,
        device_map={"": local_rank()} if on_cuda else None,
    )
    if four_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    torch.manual_seed(seed)  # the adapter's A matrices are random
    lora = recipe.lora
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def count_positions(path: str, *, trust_remote_code: bool) -> int | None:
    """Return a model's maximum number of positions; None if its config does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def compute_dtype(recipe: PolicyConfig) -> str:
    """Return the compute dtype: the recipe's, or what suits the device."""
    import torch

    if recipe.dtype != "auto":
        return recipe.dtype
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if _has_bfloat16() else "float16"


def check_dtype(recipe: PolicyConfig) -> None:
    """Refuse a compute dtype that the card would emulate.

    Raises:
        PolicyError: bfloat16 on a card without it.
    """
    import torch

    if recipe.dtype == "bfloat16" and torch.cuda.is_available() and not _has_bfloat16():
        raise PolicyError(
            f"policy.dtype is bfloat16, which {torch.cuda.get_device_name()} does not compute in "
            "(cards from Ampere on do); use --set policy.dtype=auto, which takes float16 there"
        )


def _has_bfloat16() -> bool:
    """Whether the card computes in bfloat16 natively."""
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """Disable dropout and gradients inside a `with` block.

    Evaluation mode also disables gradient checkpointing, which would silently drop the KV cache.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
