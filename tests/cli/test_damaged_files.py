"""JSON files of runs, evaluations and models that are nested too deeply, or are something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app

DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED = {"deep": DEEP, "deep object": '{"a":' * 100_000, "a list": "[1]", "cut": '{"a": '}


def line_of(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_an_evaluation_whose_settings_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    line = line_of("eval", "compare", str(tmp_path), str(tmp_path), code=70)
    assert line.startswith(f"rsearch: {tmp_path / 'evaluation.json'} cannot be read (")
    assert line.endswith("start over with --overwrite")


def test_an_answer_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"methods": ["rsearch"]}')
    (tmp_path / "predictions.jsonl").write_text(DEEP + "\n")
    line = line_of("eval", "compare", str(tmp_path), str(tmp_path), code=22)
    assert line.startswith(f"rsearch: {tmp_path / 'predictions.jsonl'}, line 1: ")


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["summary.json", "environment.json"])
def test_a_run_that_cannot_be_pushed(
    text: str, name: str, finished_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / name).write_text(text)
    line = line_of("push", str(run), "--hub-model-id", "me/agent", "--dry-run", code=70)
    assert line.startswith(f"rsearch: {run / name} cannot be read (")


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000], ids=["list", "object"])
def test_a_model_whose_config_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    line = line_of("infer", "--model", str(tmp_path), "who?", code=60)
    assert "config.json cannot be read: it is nested too deeply" in line
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(text)
    line = line_of("infer", "--model", str(adapter), "who?", code=60)
    assert "adapter_config.json cannot be read: it is nested too deeply" in line
