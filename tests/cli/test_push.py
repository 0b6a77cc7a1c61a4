"""`rsearch push` without a Hub: dry runs and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def call(*arguments: str):
    return CliRunner().invoke(app, ["push", *arguments])


def test_a_dry_run_shows_files_sizes_and_card_without_token_or_network(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    result = call(str(run), "--hub-model-id", "me/agent", "--dry-run")
    assert result.exit_code == 0, result.output
    weights = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"{weights:>14,}  adapter/adapter_model.safetensors" in result.stdout
    assert "# agent\n" in result.stdout
    assert f"nothing uploaded; the files are in {run / 'push'}" in result.stdout
    assert "scanning" in result.stderr
    assert "scanning" not in result.stdout
    assert (run / "push" / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_several_kinds_by_commas_or_repeated(run):
    result = call(
        str(run), "--hub-model-id", "me/agent", "--what", "adapter,merged", "--what", "adapter",
        "--dry-run", "--json",
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert {"adapter/adapter_model.safetensors", "model.safetensors"} <= report["files"].keys()
    assert report["merge"] == {"prompts": 20, "identical": 20, "ties": 0}
    assert report["commit"] is None


def test_gguf_is_asked_of_llama_cpp_before_anything_is_merged(run, monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    gguf = [str(run), "--hub-model-id", "me/agent", "--what", "gguf", "--dry-run", "--json"]
    result = call(*gguf)
    assert result.exit_code == 99
    assert "merging" not in result.stderr
    (tmp_path / "convert_hf_to_gguf.py").write_text(
        "import sys, pathlib\n"
        "model, out = pathlib.Path(sys.argv[1]), sys.argv[sys.argv.index('--outfile') + 1]\n"
        "assert (model / 'tokenizer.json').is_file() and (model / 'model.safetensors').is_file()\n"
        "pathlib.Path(out.replace('{ftype}', 'F32')).write_bytes(b'GGUF')\n"
    )
    result = call(*gguf)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    files = {"README.md", "agent-F32.gguf", "recipe.yaml", "reward.png", "rsearch.json"}
    assert report["files"].keys() == files
    assert "llama-server -hf me/agent --hf-file agent-F32.gguf" in report["card"]
    assert not list(run.glob(".merging-*"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--what", "pickle"], 2, "--what 'pickle': choose from adapter, merged, gguf"),
        (["--create-pr", "--revision", "v1"], 2, "a pull request always targets main"),
        ([], 90, "add --hub-model-id USER/NAME"),
    ],
)
def test_bad_input_is_one_clear_line(run, arguments, code, words):
    result = call(str(run), *arguments)
    assert result.exit_code == code
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_a_folder_without_a_run_or_an_adapter_has_nothing_to_push(run, tmp_path):
    result = call(str(tmp_path / "none"), "--hub-model-id", "me/agent")
    assert (result.exit_code, "is not a run folder" in result.stderr) == (97, True)
    shutil.rmtree(run / "adapter")
    result = call(str(run), "--hub-model-id", "me/agent")
    assert result.exit_code == 97
    assert f"rsearch train --recipe {run / 'recipe.yaml'} --resume" in result.stderr


@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_a_base_that_cannot_be_had_is_one_clear_line(run, what):
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("builtin:nano", "maker/gone"))
    result = call(str(run), "--hub-model-id", "me/agent", "--dry-run", "--what", what)
    assert result.exit_code == 90
    assert result.stderr.startswith("rsearch: the base model maker/gone cannot be read: ")
    assert result.stderr.count("\n") == 1


def test_an_adapter_on_a_folder_needs_its_hub_id(run, tmp_path):
    from rsearch_cli.policy.resolve import locate_model

    model = shutil.copytree(locate_model("builtin:nano"), tmp_path / "mine")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("builtin:nano", str(model)))
    ours = [str(run), "--hub-model-id", "me/agent", "--trust-settings"]
    result = call(*ours, "--dry-run")
    assert result.exit_code == 90
    assert "give its Hub id with --base-model ID" in result.stderr
    named = ["--base-model", "maker/base", "--dry-run", "--json"]
    result = call(*ours, *named)
    assert result.exit_code == 0, result.output
    settings = json.loads((run / "push" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "maker/base"
    assert not (run / "push" / "base").exists()
    assert "as stated by the publisher" in json.loads(result.stdout)["card"]
    result = call(*ours, "--what", "merged", "--dry-run", "--json")
    assert "a local model folder; its origin is not recorded" in json.loads(result.stdout)["card"]
