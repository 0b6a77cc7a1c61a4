"""Merged weights must generate the same tokens as base and adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.errors import MergeBroken, PublishError
from rsearch_cli.policy.adapter import read_adapter
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.publishing import merge
from rsearch_cli.publishing.base_model import BaseWeights
from rsearch_cli.publishing.merge import MergeCheck, _compare, _Continuation

PROMPTS = [f"<|user|>Who wrote The Amber Lamp number {n}?<|end|><|assistant|>" for n in range(22)]


def merge_adapter(base: str, adapter: Path, target: Path, dtype: str) -> None:
    merge.merge_adapter(BaseWeights(base, None, "x"), read_adapter(adapter), target, dtype)


def check_merge(base: str, adapter: Path, merged: Path, prompts, dtype: str) -> MergeCheck:
    stored = read_adapter(adapter)
    return merge.check_merge(BaseWeights(base, None, "x"), stored, merged, prompts, dtype)


@pytest.fixture(scope="module")
def nano() -> str:
    return locate_model("builtin:nano")


def make_adapter(base: str, folder: Path, targets: list[str]) -> Path:
    """An adapter with an effect, as training would leave it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(nano, tmp_path_factory) -> Path:
    return make_adapter(nano, tmp_path_factory.mktemp("adapter"), ["q_proj", "o_proj", "down_proj"])


@pytest.fixture
def merged(nano, adapter, tmp_path) -> Path:
    merge_adapter(nano, adapter, tmp_path, "float32")
    return tmp_path


def change(merged: Path, name: str, scale: float) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(merged / "model.safetensors")
    weights[name] = weights[name] * scale
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})


def test_merged_weights_answer_as_base_and_adapter(nano, adapter, merged):
    assert check_merge(nano, adapter, merged, PROMPTS, "float32") == MergeCheck(20, 20, 0)
    assert not list(merged.glob("*.bin"))


def test_the_merged_model_is_another_than_its_base(nano, adapter, merged):
    """Otherwise the comparison above could not fail."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(nano, dtype="float32").save_pretrained(merged)
    with pytest.raises(MergeBroken, match=r"generate different tokens for \d+ of 20 prompts"):
        check_merge(nano, adapter, merged, PROMPTS, "float32")


def test_a_broken_merge_is_refused(nano, adapter, merged):
    change(merged, "model.layers.1.mlp.down_proj.weight", 0.5)
    with pytest.raises(MergeBroken, match=r"nothing uploaded; use --what adapter") as caught:
        check_merge(nano, adapter, merged, PROMPTS, "float32")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_one_line(nano, adapter, tmp_path):
    with pytest.raises(PublishError, match=r"cannot be loaded: ") as caught:
        check_merge(nano, adapter, tmp_path, PROMPTS, "float32")
    assert "\n" not in str(caught.value)


def test_without_a_prompt_nothing_is_proved(nano, adapter, merged):
    with pytest.raises(PublishError, match="the run contains no question to check"):
        check_merge(nano, adapter, merged, [], "float32")


@pytest.mark.parametrize(
    ("written", "tie", "ties"),
    [([1, 2, 3], 0.1, 0), ([1, 8, 5], 0.1, 1), ([1, 8, 5], 0.01, None), ([1, 9, 5], 0.1, None)],
    ids=["same", "rounding", "too far apart", "not the runner-up"],
)
def test_only_rounding_may_part_two_answers(written, tie, ties):
    expected = _Continuation([1, 2, 3], [7, 8, 9], [1.0, 0.05, 1.0])
    found = _Continuation(written, [0, 0, 0], [0.0, 0.0, 0.0])
    if ties is None:
        with pytest.raises(MergeBroken, match="1 of 1 prompts"):
            _compare(["p"], [expected], [found], tie)
    else:
        assert _compare(["p"], [expected], [found], tie) == MergeCheck(1, 1 - ties, ties)


def test_a_real_instruct_model_is_merged_exactly(smollm2, tmp_path):
    adapter = make_adapter(str(smollm2), tmp_path / "adapter", ["q_proj", "v_proj"])
    merge_adapter(str(smollm2), adapter, tmp_path / "merged", "float32")
    prompts = [f"<|im_start|>user\nName town {n}.<|im_end|>\n<|im_start|>assistant\n" for n in "ab"]
    found = check_merge(str(smollm2), adapter, tmp_path / "merged", prompts, "float32")
    assert found == MergeCheck(2, 2, 0)
