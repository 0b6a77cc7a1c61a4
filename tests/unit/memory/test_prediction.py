"""The plan as a whole, and the settings that make it smaller."""

from __future__ import annotations

import pytest

from rsearch_cli.memory.components import ALWAYS, PHASES, SLACK
from rsearch_cli.memory.prediction import predict_memory
from rsearch_cli.memory.shape import KNOWN
from rsearch_cli.memory.suggestions import suggest_settings
from rsearch_cli.memory.workload import Row
from rsearch_cli.recipe.loading import load_recipe

SHAPE = KNOWN["Qwen/Qwen2.5-7B-Instruct"]


@pytest.fixture
def seven(tmp_path):
    """A recipe of nothing but defaults, with settings."""

    def load(*settings: str):
        file = tmp_path / "seven.yaml"
        file.write_text("purpose: p\nhardware: h\n")
        return load_recipe(str(file), settings).recipe

    return load


def test_the_peak_is_what_always_lies_there_and_the_largest_phase(seven) -> None:
    plan = predict_memory(SHAPE, seven(), "unsloth", Row(600, 1924))
    always = sum(plan.size_gb(p.name) for p in plan.components if p.phases == (ALWAYS,))
    rollout = plan.size_gb("kv_cache") + plan.size_gb("prefill")
    update = plan.size_gb("gradients") + plan.size_gb("layer_inputs")
    loss = update + plan.size_gb("forward_and_loss")
    backward = update + plan.size_gb("layer_recomputed")
    assert [plan.phase_gb(phase) - always for phase in PHASES] == pytest.approx(
        [rollout, loss, backward]
    )
    assert plan.peak == "rollout"
    assert plan.total_gb == pytest.approx(always + rollout)


def test_slack_is_a_share_of_all_tensors(seven) -> None:
    plan = predict_memory(SHAPE, seven(), "unsloth")
    tensors = plan.total_gb - plan.size_gb("cuda") - plan.size_gb("slack")
    assert plan.size_gb("slack") == pytest.approx(SLACK * tensors)


def test_it_fits_where_the_card_is_as_large(seven) -> None:
    plan = predict_memory(SHAPE, seven(), "unsloth")
    assert plan.fits(plan.total_gb) and not plan.fits(plan.total_gb - 0.01)


@pytest.mark.parametrize(
    ("setting", "part", "factor"),
    [
        ("rollout.micro_batch=32", "kv_cache", 0.5),
        ("policy.lora.r=8", "optimiser", 0.5),
        ("policy.dtype=float32", "kv_cache", 2),
        ("train.batch_size=4", "layer_inputs", 4),
    ],
)
def test_a_part_follows_its_setting(seven, setting: str, part: str, factor: float) -> None:
    row = Row(600, 1924)
    before = predict_memory(SHAPE, seven("rollout.micro_batch=64"), "unsloth", row).size_gb(part)
    after = predict_memory(SHAPE, seven("rollout.micro_batch=64", setting), "unsloth", row)
    assert after.size_gb(part) == pytest.approx(before * factor, rel=0.01)


def test_transformers_takes_more_than_unsloth(seven) -> None:
    totals = [
        predict_memory(SHAPE, seven("rollout.micro_batch=4"), backend, Row(600, 1924)).total_gb
        for backend in ("unsloth", "transformers")
    ]
    assert totals[1] > 1.4 * totals[0]


def test_each_knob_does_what_it_says(seven) -> None:
    settings = (
        "train.batch_size=4",
        "rollout.max_turns=2",
        "policy.load_in_4bit=false",
        "policy.gradient_checkpointing=false",
        "policy.max_seq_length=32768",
        "policy.lora.r=256",
        "policy.lora.target_modules=[q_proj,up_proj]",
    )
    recipe = seven(*settings)
    now = predict_memory(SHAPE, recipe, "unsloth").total_gb
    suggestions = suggest_settings(SHAPE, recipe, "unsloth")
    assert [k.saves_gb for k in suggestions] == sorted(
        (k.saves_gb for k in suggestions), reverse=True
    )
    turned = {key.partition("=")[0] for suggestion in suggestions for key in suggestion.settings}
    assert turned == {
        "rollout.micro_batch",
        "rollout.max_new_tokens",
        "rollout.max_turns",
        "policy.max_seq_length",
        "policy.load_in_4bit",
        "policy.gradient_checkpointing",
        "policy.lora.target_modules",
        "policy.lora.r",
        "train.batch_size",
        "train.gradient_accumulation_steps",
    }
    for suggestion in suggestions:
        changed = seven(*settings, *suggestion.settings)
        then = predict_memory(SHAPE, changed, "unsloth").total_gb
        assert suggestion.total_gb == pytest.approx(then)
        assert suggestion.saves_gb == pytest.approx(now - then)


def test_a_setting_that_would_take_more_is_no_knob(seven) -> None:
    recipe = seven("policy.backend=transformers", "policy.load_in_4bit=false")
    suggestions = [
        str(suggestion) for suggestion in suggest_settings(SHAPE, recipe, "transformers")
    ]
    # In 4 bit, PEFT has float32 activations; for rollouts of this size they outweigh the weights.
    assert "--set policy.load_in_4bit=true" not in suggestions
    assert "--set policy.gradient_checkpointing=true" not in suggestions
    assert suggestions[0].startswith("--set rollout.micro_batch=")


def test_a_knob_is_written_as_an_option(seven) -> None:
    recipe = seven("rollout.micro_batch=16", "train.batch_size=2")
    told = [str(suggestion) for suggestion in suggest_settings(SHAPE, recipe, "unsloth")]
    assert "--set rollout.micro_batch=8" in told
    assert "--set train.batch_size=1 --set train.gradient_accumulation_steps=8" not in told
