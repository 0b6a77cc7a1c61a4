"""What `--model` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.choice import ModelChoice, choose_model, describe_weights
from rsearch_cli.policy.loading import locate_model


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
    with pytest.raises(PolicyError, match=r"a path is not taken from an adapter; name the base"):
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
    with pytest.raises(PolicyError, match=r"no run .*, no adapter .* and no model folder"):
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
