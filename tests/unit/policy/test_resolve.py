"""From a model name to its files: runs, adapters, model folders, Hub ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.adapter import read_adapter
from rsearch_cli.policy.loading import load_policy
from rsearch_cli.policy.resolve import (
    ModelChoice,
    Weights,
    choose_model,
    describe_weights,
    find_weights,
    locate_model,
    match_adapter,
    published_recipe,
)
from rsearch_cli.recipe.policy import PolicyConfig


@pytest.fixture
def run(tmp_path: Path, write_adapter) -> Path:
    folder = tmp_path / "run"
    write_adapter(folder / "adapter")
    write_adapter(folder / "checkpoint-20")
    (folder / "recipe.yaml").write_text("purpose: x\n")
    return folder


def test_a_run_is_its_recipe_with_its_last_adapter(run):
    assert choose_model(str(run)) == ModelChoice(None, run / "adapter", run / "recipe.yaml")


def test_a_checkpoint_belongs_to_its_run(run):
    chosen = choose_model(str(run / "checkpoint-20"))
    assert chosen == ModelChoice(None, run / "checkpoint-20", run / "recipe.yaml")


def test_an_adapter_by_itself_names_its_base(tmp_path, write_adapter):
    folder = write_adapter(tmp_path / "mine", base_model_name_or_path="some/base")
    assert choose_model(str(folder)) == ModelChoice("some/base", folder)


@pytest.mark.parametrize(
    "base", ["/data/model", "../model", "~/model", "a/b/c", ".hidden/x", "x\\y"]
)
def test_an_adapter_names_no_path_of_this_machine_as_its_base(tmp_path, write_adapter, base):
    folder = write_adapter(tmp_path / "sent", base_model_name_or_path=base)
    with pytest.raises(PolicyError, match=r"paths from adapters are not trusted; name the base"):
        choose_model(str(folder))
    assert choose_model(str(folder), trusted=True) == ModelChoice(base, folder)


def test_an_adapter_on_the_model_inside_rsearch_needs_no_trust(tmp_path, write_adapter):
    nano = locate_model("builtin:nano")
    folder = write_adapter(tmp_path / "mine", base_model_name_or_path=nano)
    assert choose_model(str(folder)) == ModelChoice(nano, folder)


def test_what_is_no_folder_is_left_to_the_recipe():
    assert choose_model("builtin:nano") == ModelChoice("builtin:nano")
    assert choose_model("Qwen/Qwen2.5-7B-Instruct") == ModelChoice("Qwen/Qwen2.5-7B-Instruct")


def test_a_run_that_is_misspelt_is_no_hub_id(run):
    missing = run.parent / "rnu"
    with pytest.raises(PolicyError, match=f"there is no run {missing}; {run.parent} holds run"):
        choose_model(str(missing))


@pytest.mark.parametrize("base", [None, "", 7, ["a/b"]])
def test_an_adapter_without_a_base_is_refused(tmp_path, write_adapter, base):
    with pytest.raises(PolicyError, match="does not name its base model; give the run"):
        choose_model(str(write_adapter(tmp_path / "mine", base_model_name_or_path=base)))


def test_a_run_that_was_cut_off_is_told_from_no_run(tmp_path):
    (tmp_path / "recipe.yaml").write_text("purpose: x\n")
    with pytest.raises(PolicyError, match="has no adapter yet; finish it with --resume"):
        choose_model(str(tmp_path))


def test_any_other_folder_is_refused(tmp_path):
    with pytest.raises(PolicyError, match=r"not a run .*, an adapter .* or a model folder"):
        choose_model(str(tmp_path))


def test_other_weights_have_another_name(run, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"1")
    first = describe_weights(str(model), run / "adapter")
    (model / "model.safetensors").write_bytes(b"22")
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"others")
    second = describe_weights(str(model), run / "adapter")
    assert first["weights"] != second["weights"] and first["adapter"] != second["adapter"]
    assert describe_weights("hub/id", None) == {"weights": None, "adapter": None}


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
    with pytest.raises(PolicyError, match=r"base/ of .* is an adapter, not a whole model"):
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
    with pytest.raises(PolicyError, match=rf"is not a plain LoRA adapter \({kind}\)"):
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
