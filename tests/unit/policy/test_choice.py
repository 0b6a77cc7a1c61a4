"""What `--model` means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.choice import ModelChoice, choose_model, describe_weights


def adapter(folder: Path, base: str | None = "some/base") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    adapter(folder / "adapter")
    adapter(folder / "checkpoint-20")
    (folder / "recipe.yaml").write_text("purpose: x\n")
    return folder


def test_a_run_is_its_recipe_with_its_last_adapter(run):
    assert choose_model(str(run)) == ModelChoice(None, run / "adapter", run / "recipe.yaml")


def test_a_checkpoint_belongs_to_its_run(run):
    chosen = choose_model(str(run / "checkpoint-20"))
    assert chosen == ModelChoice(None, run / "checkpoint-20", run / "recipe.yaml")


def test_an_adapter_by_itself_names_its_base(tmp_path):
    folder = adapter(tmp_path / "mine")
    assert choose_model(str(folder)) == ModelChoice("some/base", folder)


def test_what_is_no_folder_is_left_to_the_recipe():
    assert choose_model("builtin:nano") == ModelChoice("builtin:nano")
    assert choose_model("Qwen/Qwen2.5-7B-Instruct") == ModelChoice("Qwen/Qwen2.5-7B-Instruct")


def test_a_run_that_is_misspelt_is_no_hub_id(run):
    missing = run.parent / "rnu"
    with pytest.raises(PolicyError, match=f"there is no run {missing}; {run.parent} holds run"):
        choose_model(str(missing))


def test_an_adapter_without_a_base_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="does not say which model it belongs to"):
        choose_model(str(adapter(tmp_path / "mine", base=None)))


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
