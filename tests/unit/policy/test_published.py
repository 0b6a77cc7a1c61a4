"""Telling adapters from whole models, and putting them on their base."""

from __future__ import annotations

import json

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.loading import load_policy, locate_model
from rsearch_cli.policy.published import Weights, find_weights, match_adapter, published_recipe
from rsearch_cli.recipe.policy import Policy

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"]}


def write(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | settings))
    return folder


def test_an_adapter_at_the_root_names_its_base(tmp_path):
    write(tmp_path, base_model_name_or_path="maker/base")
    assert locate_model(str(tmp_path)) == str(tmp_path)
    assert find_weights(str(tmp_path)) == Weights("maker/base", tmp_path)


def test_an_adapter_with_its_base_beside_it(tmp_path):
    write(tmp_path / "adapter")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    assert locate_model(str(tmp_path)) == str(tmp_path)
    assert find_weights(str(tmp_path)) == Weights(str(tmp_path / "base"), tmp_path / "adapter")
    (tmp_path / "config.json").write_text("{}")  # a merged model, which needs neither
    assert find_weights(str(tmp_path)) == Weights(str(tmp_path))


def test_what_cannot_be_asked_counts_as_a_whole_model():
    assert find_weights("nobody/nothing") == Weights("nobody/nothing")
    assert published_recipe("nobody/nothing") is None


def test_an_adapter_without_a_base_is_named(tmp_path):
    with pytest.raises(PolicyError, match=f"the adapter {tmp_path} does not name its base model"):
        find_weights(str(write(tmp_path)))


def test_the_adapter_s_own_settings_win(tmp_path):
    lora = match_adapter(Policy(), write(tmp_path)).lora
    assert (lora.r, lora.alpha, lora.target_modules) == (4, 8, ["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [({"use_rslora": True}, "LORA, use_rslora"), ({"peft_type": "IA3"}, "IA3")],
)
def test_an_adapter_of_another_kind_is_refused(tmp_path, settings, kind):
    with pytest.raises(PolicyError, match=rf"is no plain LoRA adapter \({kind}\)"):
        match_adapter(Policy(), write(tmp_path, **settings))


def test_an_adapter_that_does_not_fit_is_one_clear_line(tmp_path, quickstart):
    write(tmp_path, base_model_name_or_path=locate_model("builtin:nano"))
    recipe = quickstart.policy.model_copy(update={"model": str(tmp_path)})
    with pytest.raises(
        PolicyError, match=r"^policy.adapter: the weights in .* do not fit the model: "
    ) as caught:
        load_policy(recipe, seed=0)
    assert "\n" not in str(caught.value)


def test_a_folder_brings_its_recipe(tmp_path):
    assert published_recipe(str(tmp_path)) is None
    (tmp_path / "recipe.yaml").write_text("x")
    assert published_recipe(str(tmp_path)) == tmp_path / "recipe.yaml"
