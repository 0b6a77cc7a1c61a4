"""Merge an adapter into its base and check that the result generates the same tokens.

The merge uses the base's full-precision weights even if training quantised them, and stores the
result in the run's compute dtype.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import MergeBroken, PolicyError, PublishError, first_line
from rsearch_cli.policy.adapter import StoredAdapter, load_adapter
from rsearch_cli.publishing.base_model import BaseWeights

PROMPTS = 20
NEW_TOKENS = 32
_BATCH = 10
# Gap in nats between the two likeliest tokens below which rounding alone can swap them. A bfloat16
# logit between 16 and 32 has a resolution of 0.125, and both sides round.
_TIE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """Comparison of the merged weights with base and adapter.

    Attributes:
        prompts: Number of prompts compared.
        identical: Prompts with identical continuations.
        ties: Prompts whose continuations diverge at a near-tie that rounding can decide.
    """

    prompts: int
    identical: int
    ties: int


@dataclass(frozen=True, slots=True)
class _Continuation:
    """Greedy continuation of one prompt.

    Attributes:
        tokens: `[L]` ids.
        second: `[L]` id of the runner-up at each position.
        gap: `[L]` log-probability gap between winner and runner-up, in nats.
    """

    tokens: list[int]
    second: list[int]
    gap: list[float]


def merge_adapter(base: BaseWeights, adapter: StoredAdapter, target: Path, dtype: str) -> None:
    """Merge the adapter into the base and save the model as safetensors.

    Args:
        base: Full-precision base.
        adapter: The LoRA adapter.
        target: Folder to write to.
        dtype: Dtype to merge and store in, such as `bfloat16`.

    Raises:
        PublishError: Base or adapter cannot be loaded.
    """
    with _loading(base):
        merged = _with_adapter(base, adapter, dtype, "cpu").merge_and_unload(safe_merge=True)
    merged.save_pretrained(target)


def check_merge(
    base: BaseWeights, adapter: StoredAdapter, merged: Path, prompts: Sequence[str], dtype: str
) -> MergeCheck:
    """Compare greedy continuations of the merged weights with those of base and adapter.

    The merged weights are read back from disk, so the check covers exactly what is uploaded.

    Args:
        base: Full-precision base.
        adapter: The adapter; its folder contains the tokenizer.
        merged: Folder of the merged model.
        prompts: Rendered prompts; the first `PROMPTS` are used.
        dtype: Dtype of the stored merged weights.

    Raises:
        MergeBroken: The continuations differ by more than rounding.
        PublishError: There is no prompt, or something cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chosen = list(prompts[:PROMPTS])
    if not chosen:
        raise PublishError(
            "the run contains no question to check the merged weights with; nothing uploaded"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # 7B parameters in float32 do not fit a 24 GB GPU; on a CPU, compare exactly.
    computed = "float32" if device == "cpu" else dtype
    custom = base.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(
        adapter.folder, padding_side="left", trust_remote_code=custom
    )
    with _loading(base):
        expected = _continue(_with_adapter(base, adapter, computed, device), tokenizer, chosen)
        model = AutoModelForCausalLM.from_pretrained(
            merged, dtype=getattr(torch, computed), trust_remote_code=custom
        )
        found = _continue(model.to(device), tokenizer, chosen)
    del model
    return _compare(chosen, expected, found, _TIE[dtype])


def _compare(
    prompts: Sequence[str],
    expected: Sequence[_Continuation],
    found: Sequence[_Continuation],
    tie: float,
) -> MergeCheck:
    ties, broken = 0, []
    for prompt, old, new in zip(prompts, expected, found, strict=True):
        if old.tokens == new.tokens:
            continue
        at = next(i for i, token in enumerate(old.tokens) if token != new.tokens[i])
        if new.tokens[at] == old.second[at] and old.gap[at] <= tie:
            ties += 1
        else:
            broken.append(prompt)
    if broken:
        raise MergeBroken(
            f"the merged weights and the adapter on its base generate different tokens for "
            f"{len(broken)} of {len(prompts)} prompts, first for the one ending in "
            f"{broken[0][-60:]!r}; nothing uploaded; use --what adapter, which needs no merge"
        )
    return MergeCheck(len(prompts), len(prompts) - ties, ties)


def _continue(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[_Continuation]:
    """Return one greedy continuation of exactly `NEW_TOKENS` tokens per prompt."""
    import torch
    from transformers import GenerationConfig

    # Without an end token all rows are equally long, and text after the end is compared too.
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    model.eval()
    model.generation_config = config
    continuations: list[_Continuation] = []
    for start in range(0, len(prompts), _BATCH):
        batch = tokenizer(
            list(prompts[start : start + _BATCH]),
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(model.device)
        with torch.no_grad():
            out = model.generate(
                **batch,
                generation_config=config,
                output_logits=True,
                return_dict_in_generate=True,
            )
        best = torch.stack(out.logits, dim=1).float().log_softmax(-1).topk(2, dim=-1)
        gaps = (best.values[..., 0] - best.values[..., 1]).tolist()
        tokens = out.sequences[:, batch["input_ids"].shape[1] :].tolist()
        seconds = best.indices[..., 1].tolist()
        continuations += [
            _Continuation(t, s, g) for t, s, g in zip(tokens, seconds, gaps, strict=True)
        ]
    return continuations


def _with_adapter(base: BaseWeights, adapter: StoredAdapter, dtype: str, device: str) -> Any:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base.path, dtype=getattr(torch, dtype), trust_remote_code=base.trust_remote_code
    )
    model = get_peft_model(model.to(device), adapter.as_config())
    load_adapter(model, adapter.folder, is_trainable=False)
    return model


@contextmanager
def _loading(base: BaseWeights) -> Iterator[None]:
    """Turn loading failures into one line, and free the memory of the block's models."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, PolicyError) as error:
        what = f"{base.path} or its adapter cannot be loaded"
        raise PublishError(f"{what}: {first_line(error)}") from error
    finally:
        gc.collect()
