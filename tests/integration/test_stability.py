"""A policy that collapses, and the best adapter of a run, through the real trainer."""

from __future__ import annotations

import json
from pathlib import Path

from backend import BACKEND
from typer.testing import CliRunner

from rsearch_cli.app import app

SETTINGS = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    f"policy.backend={BACKEND}",
    "rollout.max_new_tokens=60",
    "train.batch_size=8",
    "train.num_generations=4",
    "evaluate.limit=4",
    "evaluate.sampled=false",
    "evaluate.show_trajectories=0",
)
# Ten thousand times that of a 7B model: the first update already destroys the policy.
RUINOUS = ("train.learning_rate=0.05", "alarms.window=8")


def train(folder: Path, *settings: str, resume: bool = False):
    options = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    options += ["--output-dir", str(folder), *(["--resume"] if resume else [])]
    return CliRunner().invoke(app, ["train", "--recipe", "quickstart", *options])


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_a_collapsed_run_stops_keeps_its_best_adapter_and_can_be_resumed(tmp_path: Path) -> None:
    settings = (*RUINOUS, "train.max_steps=5", "evaluate.every_steps=4", "evaluate.slice=4")
    stopped = train(tmp_path, *settings, "alarms.stop_on_collapse=true")
    assert stopped.exit_code == 68, stopped.output
    step = rows(tmp_path, "metrics.jsonl")[-1]["step"]
    assert 3 <= step < 5
    line = stopped.stderr.strip().splitlines()[-1]
    assert line.startswith(f"rsearch: the policy is collapsing: after step {step}, ")
    assert f"is saved in {tmp_path / f'checkpoint-{step}'}; the best adapter, of step 0," in line
    assert f"alarm after step {step}: " in stopped.stderr
    assert not (tmp_path / "summary.json").exists() and not (tmp_path / "adapter").exists()
    assert json.loads((tmp_path / "best" / "validation.json").read_text())["step"] == 0
    alarms = rows(tmp_path, "metrics.jsonl")[-1]["alarms"]
    assert alarms

    resumed = train(tmp_path, *settings, "alarms.stop_on_collapse=false", resume=True)
    assert resumed.exit_code == 0, resumed.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"]["step"] == 0 and summary["kept"] == "last"
    assert {summary["alarms"][name] for name in alarms} == {step}
    assert [row["step"] for row in rows(tmp_path, "validation.jsonl")] == [0, 4, 5]
    assert "Best validation (v, 4 other questions)" in resumed.stdout
    assert f"Alarms: {alarms[0]} after step {step}" in resumed.stdout


def test_validation_does_not_change_the_training(tmp_path: Path) -> None:
    def course(folder: Path) -> list[tuple]:
        names = ("step", "reward", "entropy", "kl", "grad_norm", "completion_length", "searches")
        return [tuple(row[name] for name in names) for row in rows(folder, "metrics.jsonl")]

    plain, validated = tmp_path / "plain", tmp_path / "validated"
    steps = ("train.max_steps=2",)
    assert train(plain, *steps).exit_code == 0
    result = train(validated, *steps, "evaluate.every_steps=1", "evaluate.slice=4")
    assert result.exit_code == 0, result.output
    assert course(validated) == course(plain)
    assert weights(validated / "adapter") == weights(plain / "adapter")
    assert [row["step"] for row in rows(validated, "validation.jsonl")] == [0, 1, 2]
    assert "validation after step 2: F1 " in result.stderr
    assert json.loads((plain / "summary.json").read_text())["best"] is None


def test_the_best_adapter_can_be_the_one_of_the_run(tmp_path: Path) -> None:
    settings = (*RUINOUS, "train.max_steps=2", "evaluate.every_steps=1", "evaluate.slice=4")
    result = train(tmp_path, *settings, "train.keep=best")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best"]["step"] == 0 and summary["best"]["f1"] > 0
    assert weights(tmp_path / "adapter") == weights(tmp_path / "best")
    assert weights(tmp_path / "adapter") != weights(tmp_path / "checkpoint-2")
    assert summary["difference"]["em"] == 0.0, "it is the policy from before the training"


def test_a_healthy_run_is_not_stopped(tmp_path: Path) -> None:
    watched = ("alarms.stop_on_collapse=true", "alarms.window=8")
    result = train(tmp_path, "train.max_steps=4", *watched)
    assert result.exit_code == 0, result.output
    assert [row["alarms"] for row in rows(tmp_path, "metrics.jsonl")] == [[]] * 4
    assert "alarm" not in result.stderr.lower()
