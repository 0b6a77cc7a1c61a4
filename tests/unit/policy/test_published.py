"""Telling adapters from whole models, and putting them on their base."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.adapter import read_adapter
from rsearch_cli.policy.loading import load_policy, locate_model
from rsearch_cli.policy.published import Weights, find_weights, match_adapter, published_recipe
from rsearch_cli.recipe.policy import PolicyConfig


@pytest.fixture
def model(tmp_path, write_adapter):
    """A folder as a push leaves it: an adapter, and its base beside it."""
    import shutil

    write_adapter(tmp_path / "pushed" / "adapter", base_model_name_or_path=None)
    shutil.copytree(locate_model("builtin:nano"), tmp_path / "pushed" / "base")
    return tmp_path / "pushed"


def test_an_adapter_at_the_root_names_its_base(tmp_path, write_adapter):
    write_adapter(tmp_path, base_model_name_or_path="maker/base")
    assert locate_model(str(tmp_path)) == str(tmp_path)
    assert find_weights(str(tmp_path)) == Weights("maker/base", tmp_path)


def test_an_adapter_with_its_base_beside_it(model):
    assert locate_model(str(model)) == str(model)
    assert find_weights(str(model)) == Weights(str(model / "base"), model / "adapter")
    (model / "config.json").write_text("{}")  # a merged model, which needs neither
    assert find_weights(str(model)) == Weights(str(model))


def test_a_base_that_is_an_adapter_itself_is_not_followed(model, tmp_path, write_adapter):
    """Transformers would load whatever that one names as its base."""
    write_adapter(model / "base", base_model_name_or_path="somebody/else")
    with pytest.raises(PolicyError, match=r"base/ of .* is an adapter, and no whole model"):
        find_weights(str(model))


def test_what_cannot_be_asked_counts_as_a_whole_model():
    assert find_weights("nobody/nothing") == Weights("nobody/nothing")
    assert published_recipe("nobody/nothing") is None


def test_an_adapter_without_a_base_is_named(tmp_path, write_adapter):
    folder = write_adapter(tmp_path, base_model_name_or_path=None)
    with pytest.raises(PolicyError, match=f"the adapter {folder} does not name its base model"):
        find_weights(str(folder))


def test_the_adapter_s_own_settings_win(tmp_path, write_adapter):
    lora = match_adapter(PolicyConfig(), read_adapter(write_adapter(tmp_path))).lora
    assert (lora.r, lora.alpha, lora.target_modules) == (4, 8, ["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [({"use_rslora": True}, "use_rslora"), ({"r": 8}, "different ranks")],
)
def test_an_adapter_of_another_kind_is_not_trained_further(tmp_path, write_adapter, settings, kind):
    stored = read_adapter(write_adapter(tmp_path, **settings))
    with pytest.raises(PolicyError, match=rf"is no plain LoRA adapter \({kind}\)"):
        match_adapter(PolicyConfig(), stored)


def test_an_adapter_that_does_not_fit_is_one_clear_line(tmp_path, write_adapter, quickstart):
    write_adapter(tmp_path, base_model_name_or_path=locate_model("builtin:nano"))
    recipe = quickstart.policy.model_copy(update={"model": str(tmp_path)})
    with pytest.raises(
        PolicyError,
        match=r"is for another model .* 8 inputs and 8 outputs, and the model has 192 and 192",
    ) as caught:
        load_policy(recipe, seed=0)
    assert "\n" not in str(caught.value)


def test_a_folder_brings_its_recipe(tmp_path):
    assert published_recipe(str(tmp_path)) is None
    (tmp_path / "recipe.yaml").write_text("x")
    assert published_recipe(str(tmp_path)) == tmp_path / "recipe.yaml"
