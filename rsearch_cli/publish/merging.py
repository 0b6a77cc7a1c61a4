"""Merging an adapter into its base, and the proof that nothing was lost on the way.

Place in the path: a step of staging, before anything is uploaded. Weights are merged into the full
precision that the base is stored in, whatever they were quantised to in training, and kept in the
type that the run computed in. On failure: merged weights that answer otherwise than base and
adapter are a `MergeBroken`; weights that cannot be loaded a `PublishError`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.errors import MergeBroken, PolicyError, PublishError
from rsearch_cli.policy.adapter import StoredAdapter, load_adapter
from rsearch_cli.publish.base import Base

PROMPTS = 20
NEW_TOKENS = 32
_BATCH = 10
# Nats between the two likeliest tokens under which rounding alone may swap them: one step of a
# bfloat16 logit between 16 and 32 is 0.125, and both sides round.
_TIE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """How merged weights compare with base and adapter.

    Attributes:
        prompts: Prompts that both answered.
        identical: Those answered with the very same tokens.
        ties: Those that part at a token where rounding decides between two.
    """

    prompts: int
    identical: int
    ties: int


@dataclass(frozen=True, slots=True)
class _Path:
    """What a model wrote greedily after one prompt.

    Attributes:
        tokens: `[l]` ids.
        second: `[l]` the runner-up at each place.
        gap: `[l]` nats between winner and runner-up.
    """

    tokens: list[int]
    second: list[int]
    gap: list[float]


def merge_adapter(base: Base, adapter: StoredAdapter, target: Path, dtype: str) -> None:
    """Write a model folder with the adapter merged into the base, as safetensors.

    Args:
        base: Full-precision weights.
        adapter: The LoRA adapter.
        target: Folder to write into.
        dtype: Type to merge and to store in, such as `bfloat16`.

    Raises:
        PublishError: Base or adapter cannot be loaded.
    """
    with _loading(base):
        merged = _with_adapter(base, adapter, dtype, "cpu").merge_and_unload(safe_merge=True)
    merged.save_pretrained(target)


def check_merge(
    base: Base, adapter: StoredAdapter, merged: Path, prompts: Sequence[str], dtype: str
) -> MergeCheck:
    """Compare greedy answers of merged weights with those of base and adapter.

    The merged weights are read back from disk, so what is checked is what is uploaded.

    Args:
        base: Full-precision weights.
        adapter: The adapter; its folder holds the tokenizer.
        merged: Folder of the merged model.
        prompts: Rendered prompts; the first `PROMPTS` are used.
        dtype: Type that the merged weights are stored in.

    Raises:
        MergeBroken: They differ by more than rounding; the first prompt is named.
        PublishError: There is no prompt, or something cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chosen = list(prompts[:PROMPTS])
    if not chosen:
        raise PublishError("the run holds no question to compare merged weights with; not pushed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # A CPU has the memory to compare exactly; a 24 GB card does not hold 7B parameters in float32.
    computed = "float32" if device == "cpu" else dtype
    custom = base.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(
        adapter.folder, padding_side="left", trust_remote_code=custom
    )
    with _loading(base):
        expected = _answer(_with_adapter(base, adapter, computed, device), tokenizer, chosen)
        model = AutoModelForCausalLM.from_pretrained(
            merged, dtype=getattr(torch, computed), trust_remote_code=custom
        )
        found = _answer(model.to(device), tokenizer, chosen)
    del model
    return _compare(chosen, expected, found, _TIE[dtype])


def _compare(
    prompts: Sequence[str], expected: Sequence[_Path], found: Sequence[_Path], tie: float
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
            f"the merged weights answer {len(broken)} of {len(prompts)} prompts otherwise than "
            f"base and adapter do, the first one ending in {broken[0][-60:]!r}; nothing was "
            "uploaded; push --what adapter, which needs no merging"
        )
    return MergeCheck(len(prompts), len(prompts) - ties, ties)


def _answer(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[_Path]:
    """Greedy continuations of `NEW_TOKENS` tokens each, all of equal length."""
    import torch
    from transformers import GenerationConfig

    # No token ends a row: all of them are as long, and what comes after an end is compared too.
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    model.eval()
    model.generation_config = config
    paths: list[_Path] = []
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
        paths += [_Path(t, s, g) for t, s, g in zip(tokens, seconds, gaps, strict=True)]
    return paths


def _with_adapter(base: Base, adapter: StoredAdapter, dtype: str, device: str) -> Any:
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
def _loading(base: Base) -> Iterator[None]:
    """Say in one line that weights could not be loaded, and give their memory back."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, PolicyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PublishError(f"{base.path} or its adapter could not be loaded: {first}") from error
    finally:
        gc.collect()
