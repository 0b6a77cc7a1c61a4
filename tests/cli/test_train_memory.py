"""`rsearch train` asks the memory plan before it loads anything."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app

SEVEN = [
    "--recipe", "hotpot-offline",
    "--model-name", "Qwen/Qwen2.5-7B-Instruct",
    "--set", "policy.backend=transformers",
    "--data-path", "none.jsonl",
]  # fmt: skip

LATER = 21
"""The exit code of the missing question file, which is looked at next."""


def call(*arguments: str):
    return CliRunner().invoke(app, ["train", *arguments])


@pytest.fixture
def card(monkeypatch):
    """A card of so many GB, as far as nvidia-smi is concerned."""

    def install(vram_gb: float | None) -> None:
        monkeypatch.setattr("rsearch_cli.workflows.estimate.find_vram", lambda: vram_gb)

    return install


def test_a_run_that_cannot_fit_is_refused_in_one_line(card, tmp_path) -> None:
    card(8.0)
    run = tmp_path / "run"
    result = call(*SEVEN, "--output-dir", str(run))
    assert result.exit_code == 67
    needs = "rsearch: the run is predicted to need 12.0 GB in its loss, and the card has 8.0 GB; "
    assert result.stderr.startswith(f"{needs}try --set policy.backend=unsloth (8.1 GB), --set ")
    assert result.stderr.endswith("; --force starts it anyway\n")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not run.exists()


def test_a_share_of_vllm_that_is_too_small_is_the_reason(monkeypatch) -> None:
    # On a machine with a card: Unsloth, and 4 bits.
    monkeypatch.setattr("rsearch_cli.workflows.estimate.find_vram", lambda: 24.0)
    monkeypatch.setattr("rsearch_cli.workflows.estimate.torch_sees_gpu", lambda: True)
    monkeypatch.setattr(
        "rsearch_cli.workflows.estimate.choose_backend", lambda name: ("unsloth", None)
    )
    engine = ["--set", "rollout.engine=vllm", "--set", "rollout.vllm_memory_share=0.2"]
    result = call("--recipe", "hotpot-offline-7b", "--data-path", "none.jsonl", *engine)
    assert result.exit_code == 67
    assert result.stderr.startswith(
        "rsearch: vLLM may take 4.8 GB (rollout.vllm_memory_share=0.2) and is predicted to need "
    )


def test_settings_that_suffice_are_named_first(card) -> None:
    card(10.8)
    hint = call(*SEVEN).stderr.partition("try ")[2]
    size = float(hint.partition("(")[2].partition(" GB")[0])
    assert size <= 10.8


def test_force_goes_on_anyway(card) -> None:
    card(8.0)
    result = call(*SEVEN, "--force")
    assert result.exit_code == LATER
    needs = "started because of --force: the run is predicted to need 12.0 GB"
    assert f"warning: {needs}" in result.stderr


@pytest.mark.parametrize("vram_gb", [24.0, None])
def test_a_run_that_fits_and_one_without_a_card_go_on_in_silence(card, vram_gb) -> None:
    card(vram_gb)
    result = call(*SEVEN)
    assert result.exit_code == LATER
    assert "GB" not in result.stderr


def test_a_model_that_is_not_known_is_told_and_trained(card) -> None:
    card(8.0)
    result = call(*SEVEN, "--model-name", "someone/model")
    assert result.exit_code == LATER
    warning = "warning: the memory of this run cannot be predicted: policy.model: the memory of"
    assert warning in result.stderr


def test_a_card_that_torch_cannot_use_is_the_reason_and_not_the_memory(
    monkeypatch, tmp_path
) -> None:
    problem = (
        "nvidia-smi lists a card with driver 550.1, but torch cannot use it: too old; update it"
    )
    monkeypatch.setattr("rsearch_cli.workflows.estimate.explain_unused_card", lambda: problem)
    result = call(*SEVEN, "--output-dir", str(tmp_path / "run"))
    assert result.exit_code == 67
    assert result.stderr == f"rsearch: {problem}; --force trains on the CPU\n"


def test_a_recipe_in_4_bits_is_not_trained_on_a_cpu_unless_asked_for(tmp_path) -> None:
    on_a_card = ["--recipe", "hotpot-offline-7b", "--data-path", "none.jsonl"]
    result = call(*on_a_card, "--output-dir", str(tmp_path / "run"))
    assert result.exit_code == 67
    assert "trains deepseek-ai/DeepSeek-R1-Distill-Qwen-7B in 4 bits" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    forced = call(*on_a_card, "--force", "--output-dir", str(tmp_path / "run"))
    assert forced.exit_code == LATER
    assert forced.stderr.startswith("warning: training on the CPU because of --force: ")
