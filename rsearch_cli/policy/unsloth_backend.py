"""Load and run weights with Unsloth; `compat.unsloth` imports it first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rsearch_cli.compat.isolation import output_to_log
from rsearch_cli.compat.unsloth import unsloth_environment
from rsearch_cli.recipe.policy import PolicyConfig


def load_model(path: str, recipe: PolicyConfig, seed: int, vllm_share: float | None = None) -> Any:
    """Load a PEFT model, with a fresh adapter that has no effect yet.

    Args:
        path: Model folder or Hub id.
        recipe: How to load it, and its adapter.
        seed: Seed of the adapter.
        vllm_share: Share of the GPU memory for a vLLM engine on the same weights; None for none.
    """
    import torch
    from unsloth import FastLanguageModel  # first: it patches the next imports

    from rsearch_cli.policy.transformers_backend import compute_dtype

    on_cuda = torch.cuda.is_available()
    checkpointing = recipe.gradient_checkpointing
    checkpointing = on_cuda if checkpointing is None else checkpointing
    lora = recipe.lora
    with unsloth_environment(), output_to_log("unsloth"):
        model, _ = FastLanguageModel.from_pretrained(
            model_name=path,
            # Train the named weights, not Unsloth's own quantisation of them.
            use_exact_model_name=True,
            trust_remote_code=recipe.trust_remote_code,
            max_seq_length=recipe.max_seq_length if vllm_share else room_of_a_batch(path, recipe),
            dtype=getattr(torch, compute_dtype(recipe)),
            load_in_4bit=recipe.load_in_4bit if recipe.load_in_4bit is not None else on_cuda,
            **vllm_settings(recipe, vllm_share),
        )
        model = FastLanguageModel.get_peft_model(
            model,
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
            use_gradient_checkpointing="unsloth" if checkpointing else False,
            random_state=seed,
        )
    return model


def room_of_a_batch(path: str, recipe: PolicyConfig) -> int:
    """Return the longest padded row of an update: longest prompt plus longest completion.

    Unsloth's forward pass truncates longer rows, and its loss would then pair hidden states with
    the wrong tokens. Beyond the model's positions it would rescale them.
    """
    from rsearch_cli.policy.transformers_backend import count_positions

    wanted = 2 * recipe.max_seq_length
    most = count_positions(path, trust_remote_code=recipe.trust_remote_code)
    return min(wanted, most or wanted)


def vllm_settings(recipe: PolicyConfig, share: float | None) -> dict[str, Any]:
    """Return the arguments of `FastLanguageModel` for a vLLM engine, if there is one."""
    if share is None:
        return {}
    return {
        "fast_inference": True,
        "gpu_memory_utilization": share,
        # vLLM knows powers of two from 8 on.
        "max_lora_rank": max(8, 1 << (recipe.lora.r - 1).bit_length()),
    }


@contextmanager
def inference_mode(model: Any) -> Iterator[None]:
    """Switch to Unsloth's inference kernels inside a `with` block, and back to training."""
    import torch
    from unsloth import FastLanguageModel

    was_training = model.training
    with unsloth_environment():
        FastLanguageModel.for_inference(model)
        try:
            with torch.no_grad():
                yield
        finally:
            if was_training:
                FastLanguageModel.for_training(model)
