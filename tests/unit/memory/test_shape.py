"""Model dimensions: from a config, from the table, and what is said where neither helps."""

from __future__ import annotations

import json

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.memory.shape import KNOWN, find_shape, read_shape
from rsearch_cli.policy.resolve import locate_model

# As the Hub counts them, from the safetensors of each model.
PARAMETERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 500,
    "tie_word_embeddings": True,
}


@pytest.fixture
def folder(tmp_path):
    def write(**changes):
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
        return tmp_path

    return write


def test_the_table_has_the_parameters_of_the_model_cards() -> None:
    assert {name: shape.parameters for name, shape in KNOWN.items()} == PARAMETERS


@pytest.mark.stack
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_that_transformers_builds(folder, tied) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    path = folder(model_type="qwen2", tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    assert find_shape(str(path)).parameters == model.num_parameters()


def test_the_model_inside_the_package_is_read_from_its_folder() -> None:
    shape = find_shape(locate_model("builtin:nano"))
    assert (shape.hidden, shape.layers, shape.vocab) == (192, 4, 1021)


def test_what_a_config_leaves_out_has_the_family_s_default(folder) -> None:
    shape = find_shape(str(folder(num_key_value_heads=None, head_dim=None)))
    assert (shape.kv_heads, shape.head_dim, shape.qkv_bias) == (4, 16, False)


def test_the_language_model_of_a_larger_config_is_taken(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": LLAMA}))
    assert find_shape(str(tmp_path)).layers == 3


def test_a_hub_model_is_read_from_the_cache(folder, monkeypatch) -> None:
    import huggingface_hub

    cached = str(folder() / "config.json")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: cached)
    assert find_shape("someone/model").hidden == 64


def test_a_hub_model_that_is_not_here_is_told(tmp_path) -> None:
    with pytest.raises(PolicyError) as told:
        find_shape("someone/model")
    assert str(told.value) == (
        "policy.model: the memory of someone/model cannot be predicted, because its config.json is "
        "not on this machine; use a model folder, or download it with: "
        "hf download someone/model config.json"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, "it has no hidden_size"),
        ({"num_local_experts": 8}, "it is a mixture of experts"),
    ],
)
def test_a_model_of_another_kind_is_told(folder, changes, words) -> None:
    with pytest.raises(PolicyError, match=f"{words}; only dense decoders such as"):
        find_shape(str(folder(**changes)))


def test_a_broken_config_is_told(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{oops")
    with pytest.raises(PolicyError, match=r"config\.json cannot be read: Expecting property name"):
        read_shape(tmp_path / "config.json")
