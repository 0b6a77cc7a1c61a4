"""The formulas against what torch, PEFT and bitsandbytes really allocate (on the CPU)."""

from __future__ import annotations

import pytest
import torch
from allocations import Allocations

from rsearch_cli.errors import PolicyError
from rsearch_cli.memory.components import NF4_BYTES, count_adapter, logit_bytes
from rsearch_cli.memory.prediction import MemoryPrediction, predict_memory
from rsearch_cli.memory.shape import KNOWN, ModelShape
from rsearch_cli.memory.units import GIB
from rsearch_cli.memory.workload import Row, describe_workload
from rsearch_cli.recipe.policy import LoraConfig
from rsearch_cli.recipe.schema import Recipe

SHAPE = ModelShape(512, 4, 4, 1, 2688, 4096, 128, tied=False, qkv_bias=True, positions=512)
"""The proportions of a 7B Qwen2, with a small vocabulary."""

PROMPT, COMPLETION = 380, 20

FOURTEEN = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-14B"]
SEVEN = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"]


def make_recipe(*, checkpointing: bool, dropout: float) -> Recipe:
    lora = {"dropout": dropout}
    policy = {"load_in_4bit": False, "gradient_checkpointing": checkpointing, "lora": lora}
    rollout, evaluate = {"micro_batch": 4}, {"limit": 1}
    sections = {"policy": policy, "rollout": rollout, "evaluate": evaluate}
    return Recipe.model_validate({"purpose": "p", "hardware": "h", **sections})


def make_model(lora: LoraConfig, *, checkpointing: bool) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=SHAPE.hidden,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        intermediate_size=SHAPE.intermediate,
        vocab_size=SHAPE.vocab,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    adapter = LoraConfig(r=lora.r, lora_dropout=lora.dropout, target_modules=lora.target_modules)
    model = get_peft_model(model, adapter)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return model


def tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def tokens(rows: int) -> dict[str, torch.Tensor]:
    shape = (rows, PROMPT + COMPLETION)
    ones = torch.ones(shape, dtype=torch.long)
    return {"input_ids": ones, "attention_mask": ones}


def plan(recipe: Recipe) -> MemoryPrediction:
    return predict_memory(SHAPE, recipe, "transformers", Row(PROMPT, COMPLETION))


@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointed", "all kept"])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_forward_and_backward_take_what_is_planned(checkpointing: bool, dropout: float) -> None:
    recipe = make_recipe(checkpointing=checkpointing, dropout=dropout)
    model = make_model(recipe.policy.lora, checkpointing=checkpointing).train()
    with Allocations(tensors(model)) as seen, torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**tokens(1), use_cache=False, logits_to_keep=COMPLETION + 1).logits
        logits.float().logsumexp(-1).mean().backward()
    planned = plan(recipe)
    backward = planned.size_gb("layer_inputs") + planned.size_gb("layer_recomputed")
    assert seen.most / GIB == pytest.approx(backward, rel=0.1)


def test_rollouts_take_what_is_planned() -> None:
    recipe = make_recipe(checkpointing=True, dropout=0.0)
    model = make_model(recipe.policy.lora, checkpointing=True).eval()
    with Allocations(tensors(model)) as seen, torch.no_grad():
        out = model(**tokens(4), use_cache=True, logits_to_keep=1)
        del out.logits
        cache = seen.now / GIB
    planned = plan(recipe)
    # One layer of the cache is there twice while it grows, and nothing has grown yet.
    assert planned.size_gb("kv_cache") == pytest.approx(cache * (1 + 1 / SHAPE.layers), rel=0.05)
    rollout = planned.size_gb("kv_cache") + planned.size_gb("prefill")
    assert seen.most / GIB == pytest.approx(rollout, rel=0.1)


def test_a_16_bit_model_and_its_adapter_weigh_what_is_planned() -> None:
    recipe = make_recipe(checkpointing=True, dropout=0.0)
    model = make_model(recipe.policy.lora, checkpointing=True)
    real = sum(p.numel() * p.element_size() for p in model.parameters())
    planned = plan(recipe)
    assert planned.size_gb("weights") + planned.size_gb("adapter") == pytest.approx(real / GIB)


def test_nf4_takes_what_bitsandbytes_stores() -> None:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        torch.randn(2688, 512), quant_type="nf4", blocksize=64, compress_statistics=True
    )
    stored = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert stored / (2688 * 512) == pytest.approx(NF4_BYTES, rel=0.001)


def test_a_4_bit_model_weighs_what_our_back_end_loads(tmp_path) -> None:
    from rsearch_cli.policy.resolve import locate_model
    from rsearch_cli.policy.transformers_backend import load_model

    recipe = Recipe.model_validate(
        {
            "purpose": "p",
            "hardware": "h",
            "policy": {"load_in_4bit": True, "dtype": "bfloat16", "model": "builtin:nano"},
        }
    )
    model = load_model(locate_model("builtin:nano"), recipe.policy, seed=0)
    real = 0
    for name, weight in model.named_parameters():
        if "lora_" in name:
            continue
        real += weight.nbytes
        if (state := getattr(weight, "quant_state", None)) is not None:
            real += state.absmax.nbytes + state.state2.absmax.nbytes
    from rsearch_cli.memory.shape import find_shape

    planned = predict_memory(find_shape(locate_model("builtin:nano")), recipe, "transformers")
    assert planned.size_gb("weights") * GIB == pytest.approx(real, rel=0.01)


def test_the_adapter_has_the_parameters_that_peft_makes() -> None:
    lora = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "o_proj", "down_proj"])
    model = make_model(lora, checkpointing=False)
    made = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count_adapter(SHAPE, lora) == made


def test_an_adapter_on_an_unknown_module_is_told() -> None:
    with pytest.raises(PolicyError, match="an adapter on lm_head; known modules: q_proj, k_proj"):
        count_adapter(SHAPE, LoraConfig(target_modules=["lm_head"]))


def test_the_7b_model_in_4_bit_is_five_gigabytes() -> None:
    recipe = Recipe(purpose="p", hardware="h")
    assert predict_memory(SEVEN, recipe, "unsloth").size_gb("weights") == pytest.approx(
        5.17, abs=0.01
    )
    # PEFT's float32 copies of embedding and head.
    assert predict_memory(SEVEN, recipe, "transformers").size_gb("weights") == pytest.approx(
        7.20, abs=0.01
    )


def plain(**sections) -> Recipe:
    return Recipe.model_validate({"purpose": "p", "hardware": "h", **sections})


def plan_rollouts(shape: ModelShape, rows: int, row: Row) -> MemoryPrediction:
    recipe = plain(rollout={"micro_batch": rows}, evaluate={"limit": None})
    return predict_memory(shape, recipe, "unsloth", row)


def test_unsloth_holds_the_keys_and_values_of_the_context_twice() -> None:
    # 48 layers x 2 x 8 heads x 128 numbers x 2 bytes a token.
    per_token = 196_608 * 16 / GIB
    planned = plan_rollouts(FOURTEEN, 16, Row(1000, 3000))
    assert planned.size_gb("kv_cache") == pytest.approx(per_token * (4000 + 513))
    assert planned.size_gb("prefill") == pytest.approx(per_token * 4000)


def test_where_the_forward_pass_is_wider_than_a_cache_it_counts() -> None:
    planned = plan_rollouts(SEVEN, 16, Row(1000, 3000))
    second_cache = 57_344 * 16 * 4000 / GIB
    mlp = 16 * 4000 * (3 * 18_944 + 4 * 3584) * 2 / GIB
    mask = 16 * 4000 * 4000 * 2 / GIB
    logits = 16 * 152_064 * 8 / GIB
    assert planned.size_gb("prefill") == pytest.approx(mlp + mask + logits)
    assert planned.size_gb("prefill") > second_cache


def test_one_row_alone_is_not_padded_and_needs_no_mask() -> None:
    one, two = (plan_rollouts(SEVEN, rows, Row(1000, 3000)).size_gb("prefill") for rows in (1, 2))
    assert two - 2 * one == pytest.approx(2 * 4000 * 4000 * 2 / GIB)


@pytest.mark.parametrize(
    ("completion", "logits"),
    [(100, 100 * 152_064), (1000, 512 * 151_936), (30_000, 30_000 * 3584)],
    ids=["all of a short row", "a chunk", "as many as hidden states"],
)
def test_unsloths_loss_has_a_chunk_of_its_logits_at_once(completion: int, logits: int) -> None:
    work = describe_workload(plain(), "unsloth", Row(500, completion))
    hidden = 2 * completion * 3584 * 2
    assert logit_bytes(SEVEN, work) == pytest.approx(logits * 4 + hidden)


def test_an_update_starts_beside_the_keys_and_values_of_the_last_rollout() -> None:
    few, many = (plan_rollouts(SEVEN, rows, Row(1000, 3000)) for rows in (1, 16))
    # All but the layer that is computed: it has freed its own.
    more = many.size_gb("forward_and_loss") - few.size_gb("forward_and_loss")
    assert more == pytest.approx(15 * 57_344 * 4513 / GIB * 27 / 28)


def test_only_unsloth_has_a_table_of_the_model_s_positions() -> None:
    unsloth, other = (predict_memory(SEVEN, plain(), b) for b in ("unsloth", "transformers"))
    assert unsloth.size_gb("positions") == pytest.approx(2 * 131_072 * 128 * 2 / GIB)
    assert other.size_gb("positions") == 0
