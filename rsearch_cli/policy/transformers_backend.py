"""Loading and running weights with plain transformers and PEFT.

Place in the path: one of the two back ends behind `LocalPolicy`; works on any device. On failure:
what transformers raises for a missing or broken model is turned into `PolicyError` by `loading`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rsearch_cli.ranks import local_rank
from rsearch_cli.recipe.policy import Policy


def load_model(path: str, recipe: Policy, seed: int) -> tuple[Any, Any]:
    """Load model and tokenizer; the model gets a fresh adapter of zero effect.

    Returns:
        The PEFT model and its tokenizer.
    """
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

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
    return get_peft_model(model, config), AutoTokenizer.from_pretrained(path)


def compute_dtype(recipe: Policy) -> str:
    """Name of the compute type: the recipe's, or what the device is good at."""
    import torch

    if recipe.dtype != "auto":
        return recipe.dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off inside a `with` block.

    Gradient checkpointing would silently drop the KV cache; it only acts in training mode.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
