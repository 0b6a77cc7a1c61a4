"""Files of a run or an evaluation that hold something else than rsearch writes: one line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.errors import RunFolderError
from rsearch_cli.runs.files import SEAL
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.checkpoints import choose_checkpoint, find_damage
from rsearch_cli.training.tracking import _run_id
from rsearch_cli.training.validation import Validation, read_best

ROWS = ["[]\n", "{}\n", '{"step": "x"}\n', '{"step": null}\n', '{"step": [1]}\n']


def validate(folder: RunFolder) -> Any:
    return Validation(dict, folder, 1, 2)


def resume(folder: RunFolder) -> Any:
    return folder.keep_rows_until(1)


def pick(folder: RunFolder) -> Any:
    return choose_checkpoint(folder)


@pytest.mark.parametrize("text", ROWS[1:])
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("metrics.jsonl", pick),
        ("metrics.jsonl", resume),
        ("trajectories.jsonl", resume),
        ("validation.jsonl", validate),
        ("best/validation.json", read_best),
        ("wandb.json", _run_id),
    ],
)
def test_a_file_of_something_else_is_named(
    name: str, use: Callable[[RunFolder], Any], text: str, tmp_path: Path
) -> None:
    if name == "wandb.json" or (name == "best/validation.json" and "step" not in text):
        text = "{}\n"
    (tmp_path / "best").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(RunFolderError, match="is damaged") as caught:
        use(RunFolder(tmp_path))
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_seal_looks_at_no_file_outside_of_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("x")
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    for name in ("../private", str(tmp_path / "private")):
        files = {name: {"bytes": 1, "sha256": "0"}}
        (checkpoint / SEAL).write_text(json.dumps({"files": files}))
        assert find_damage(checkpoint) == f"{SEAL} names {name}, which is outside"


@pytest.mark.parametrize("settings", ["[]", "{}", '{"methods": 3}', "[" * 100_000, "nothing"])
def test_two_evaluations_of_which_one_is_none_are_one_line(settings: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(settings)
    (tmp_path / "predictions.jsonl").write_text("")
    result = CliRunner().invoke(app, ["eval", "compare", str(tmp_path), str(tmp_path)])
    assert result.exit_code == 70, result.output
    assert result.stderr.count("\n") == 1 and "evaluation.json cannot be read" in result.stderr
