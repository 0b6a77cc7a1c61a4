from __future__ import annotations

import json

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.adapter import find_adapter, keep_reference, load_adapter
from rsearch_cli.policy.loading import load_policy


@pytest.fixture
def saved(nano_policy, tmp_path):
    """The folder of an adapter that does something."""
    import torch

    folder = tmp_path / "run" / "adapter"
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in nano_policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    nano_policy.model.save_pretrained(folder)
    return folder


def logits(policy):
    import torch

    with torch.no_grad():
        return policy.model.eval()(torch.tensor([[5, 6, 7, 8]])).logits


def policy_section(quickstart, adapter, **lora):
    lora = quickstart.policy.lora.model_copy(update=lora)
    return quickstart.policy.model_copy(update={"adapter": str(adapter), "lora": lora})


@pytest.mark.parametrize("part", ["", "adapter"], ids=["run folder", "adapter folder"])
def test_a_policy_starts_from_the_adapter(nano_policy, quickstart, saved, part):
    recipe = policy_section(quickstart, saved.parent / part)
    assert find_adapter(recipe) == saved
    loaded = load_policy(recipe, seed=3)
    assert logits(loaded).equal(logits(nano_policy))
    assert not logits(load_policy(quickstart.policy, seed=3)).equal(logits(nano_policy))
    trained = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    assert trained and all("lora" in name for name in trained)


def test_no_adapter_is_none(quickstart):
    assert find_adapter(quickstart.policy) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 4}, "has r 4, and policy.lora.r is 16; use --lora-r 4"),
        ({"lora_alpha": 8}, "has lora_alpha 8, and policy.lora.alpha is 32; use --lora-alpha 8"),
        (
            {"target_modules": ["v_proj", "q_proj"]},
            "is on q_proj, v_proj, and policy.lora.target_modules is down_proj, gate_proj,",
        ),
        (
            {"base_model_name_or_path": "org/Other-7B"},
            "is for the model org/Other-7B, and policy.model is builtin:nano",
        ),
        ({"peft_type": "IA3"}, "holds a IA3 adapter; only LORA can be trained further"),
        ({"use_rslora": True}, "was made with use_rslora, which rsearch does not train"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_adapter_for_something_else_is_refused_unloaded(quickstart, saved, changes, message):
    config = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(PolicyError) as caught:
        find_adapter(policy_section(quickstart, saved))
    assert str(caught.value).startswith(f"policy.adapter: {saved} {message}")


@pytest.mark.parametrize(
    "base",
    [
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "/models/DeepSeek-R1-Distill-Qwen-7B/",
        "unsloth/deepseek-r1-distill-qwen-7b-unsloth-bnb-4bit",
    ],
)
def test_a_model_is_known_by_its_last_name(quickstart, saved, base):
    config = json.loads((saved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (saved / "adapter_config.json").write_text(json.dumps(config))
    recipe = policy_section(quickstart, saved)
    name = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert find_adapter(recipe.model_copy(update={"model": name})) == saved


def test_a_folder_without_an_adapter_is_named(quickstart, tmp_path):
    with pytest.raises(
        PolicyError, match="is neither an adapter folder nor a finished run: there is no"
    ):
        find_adapter(policy_section(quickstart, tmp_path))


def test_an_unreadable_configuration_is_named(quickstart, saved):
    (saved / "adapter_config.json").write_text("{")
    with pytest.raises(PolicyError, match=r"adapter_config\.json cannot be read"):
        find_adapter(policy_section(quickstart, saved))


def test_weights_of_another_shape_are_refused(nano_policy, saved):
    from safetensors.torch import load_file, save_file

    path = saved / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    save_file(weights | {name: weights[name][:, :-1].contiguous()}, path)
    with pytest.raises(PolicyError, match=r"do not fit the model: .*size mismatch"):
        load_adapter(nano_policy.model, saved)


def test_weights_of_fewer_layers_are_refused(nano_policy, saved):
    from safetensors.torch import load_file, save_file

    path = saved / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if ".layers.3." not in k}, path)
    with pytest.raises(PolicyError, match=r"14 are in only one of the two, such as .*layers\.3"):
        load_adapter(nano_policy.model, saved)


def test_weights_that_are_missing_are_named(quickstart, saved):
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(
        PolicyError, match=r"has no weights: there is no adapter_model\.safetensors"
    ):
        find_adapter(policy_section(quickstart, saved))


def test_a_reference_is_frozen_and_stays_out_of_what_is_saved(nano_policy, saved, tmp_path):
    import torch

    model = nano_policy.model
    keep_reference(model)
    before = logits(nano_policy)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B.default" in name:
                weight.add_(0.05)
    assert not logits(nano_policy).equal(before)
    model.set_adapter("ref")
    assert logits(nano_policy).equal(before)
    model.set_adapter("default")
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".ref." in n)
    model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "ref").exists()
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
