"""`hub.push`: a run that publishes itself, and one whose push fails."""

from __future__ import annotations

import json

import pytest
from backend import BACKEND
from typer.testing import CliRunner

from rsearch_cli.app import app

SETTINGS = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    f"policy.backend={BACKEND}",
    "train.max_steps=1",
    "train.batch_size=4",
    "train.num_generations=4",
    "evaluate.limit=2",
    "evaluate.sampled=false",
    "hub.push=true",
    "hub.model_id=me/agent",
)


def train(folder, *options: str):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return CliRunner().invoke(
        app,
        [
            "train",
            "--recipe",
            "quickstart",
            *settings,
            "--output-dir",
            str(folder),
            "--json",
            *options,
        ],
    )


def test_a_failed_push_loses_nothing_and_can_be_repeated(hub_server, tmp_path):
    folder = tmp_path / "run"
    hub_server.fault = lambda method, path: 403 if "/commit/" in path else None
    result = train(folder)
    assert result.exit_code == 92
    assert "after" in json.loads(result.stdout)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("rsearch: the Hub answered 403 while uploading (me/agent)")
    assert line.endswith(f"(the run in {folder} is complete; to publish it: rsearch push {folder})")
    hub_server.fault = lambda method, path: None
    again = CliRunner().invoke(app, ["push", str(folder)])
    assert again.exit_code == 0, again.output
    assert "adapter/adapter_model.safetensors" in hub_server.repos["me/agent"].files()
    resumed = train(folder, "--resume", "--set", "hub.private=true")
    assert resumed.exit_code == 93
    assert "already exists and is public" in resumed.stderr


@pytest.mark.parametrize(("status", "code"), [(401, 91), ("cut", 95)])
def test_a_push_that_has_no_chance_is_said_before_training(hub_server, tmp_path, status, code):
    hub_server.fault = lambda method, path: status
    result = train(tmp_path / "run")
    assert result.exit_code == code
    assert not (tmp_path / "run").exists()


def test_push_without_a_name_is_a_recipe_error(tmp_path):
    result = train(tmp_path / "run", "--set", "hub.model_id=null")
    assert result.exit_code == 13
    assert "push needs model_id, such as user/name" in result.stderr
