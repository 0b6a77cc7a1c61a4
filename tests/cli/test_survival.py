"""What ends a run before its time, and that the resumed run ends as the one that was not stopped.

The runs here have what a checkpoint can forget: dropout, a learning rate that changes, a curriculum
that ends between two stops, more steps than one pass through the questions takes, and groups that
are replaced.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loaded_process import run_loaded
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.evaluation import answering
from rsearch_cli.training import grpo
from rsearch_cli.training import run as training
from rsearch_cli.training.checkpoints import find_damage

STEPS = 4
OPTIONS = [
    "--recipe", "quickstart",
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", "policy.backend=transformers",
    "--set", "policy.lora.dropout=0.1",
    "--set", "reward.curriculum_steps=3",
    "--set", "train.resample_ties=1",
    "--set", "train.lr_scheduler=cosine",
    "--set", "train.batch_size=8",
    "--set", "train.save_steps=1",
    "--set", "evaluate.limit=4",
    "--num-generations", "4",
    "--max-samples", "5",
    "--max-steps", str(STEPS),
]  # fmt: skip


def train(folder: Path, *arguments: str):
    return CliRunner().invoke(app, ["train", "--output-dir", str(folder), *arguments])


def resume(folder: Path) -> str:
    """Go on with a run; what it says on stderr."""
    result = train(folder, "--recipe", str(folder / "recipe.yaml"), "--resume")
    assert result.exit_code == 0, result.output
    return result.stderr


def read_rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def outcome(folder: Path) -> dict:
    """Everything a run ends with, but for times and for what the cache happened to know."""

    def keep(row: dict) -> dict:
        return {k: v for k, v in row.items() if not k.startswith(("seconds/", "cache_hits/"))}

    trajectories = read_rows(folder, "trajectories.jsonl")
    for row in trajectories:
        for round_ in row["rounds"]:
            for result in round_["results"]:
                del result["cached"]
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "metrics": [keep(row) for row in read_rows(folder, "metrics.jsonl")],
        "trajectories": trajectories,
        "evaluations": {side: summary[side] for side in ("before", "after", "difference")},
        "adapter": (folder / "adapter" / "adapter_model.safetensors").read_bytes(),
    }


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def send(*signals: signal.Signals):
    """Send signals to this process, and let each be taken before the next."""
    for number in signals:
        os.kill(os.getpid(), number)


def at_step(monkeypatch, method: str, step: int, *signals: signal.Signals) -> None:
    """Send signals at the start of a training's method in a step, which counts from 1."""
    original = getattr(grpo.GrpoTraining, method)
    calls = []

    def patched(self, *arguments):
        calls.append(arguments)
        if len(calls) == step:
            send(*signals)
        return original(self, *arguments)

    monkeypatch.setattr(grpo.GrpoTraining, method, patched)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The outcome of the run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = train(folder, *OPTIONS)
    assert result.exit_code == 0, result.output
    assert not (folder / ".partial").exists()
    made = outcome(folder)
    assert len(made["metrics"]) == STEPS and len(made["trajectories"]) == STEPS * 8
    assert sum(row["discarded/rollouts"] for row in made["metrics"]) > 0
    return made


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """A run that SIGTERM stopped in its third step, and what it said."""
    folder = tmp_path_factory.mktemp("terminated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, "roll_out", 3, signal.SIGTERM)
        result = train(folder, *OPTIONS)
    return folder, result


@pytest.fixture
def run(terminated, tmp_path) -> Path:
    """A copy of that run in a place of its own, to be damaged and resumed."""
    return Path(shutil.copytree(terminated[0], tmp_path / "run"))


def test_sigterm_finishes_the_step_saves_and_has_its_own_code(terminated):
    folder, result = terminated
    assert result.exit_code == 143
    lines = result.stderr.splitlines()
    assert "finishing the step, then saving; press Ctrl-C again to stop now" in lines
    checkpoint = folder / "checkpoint-3"
    said = f"stopped by SIGTERM after a complete step; --resume continues from {checkpoint}"
    assert lines[-1] == f"rsearch: {said}"
    assert [row["step"] for row in read_rows(folder, "metrics.jsonl")] == [1, 2, 3]
    assert checkpoints(folder) == ["checkpoint-2", "checkpoint-3"]
    assert not (folder / "adapter").exists() and not (folder / "summary.json").exists()


def test_a_run_goes_on_exactly_and_also_from_another_place(run, whole):
    assert "is not used" not in resume(run)
    assert outcome(run) == whole


def test_ctrl_c_finishes_the_step_and_has_its_own_code(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    at_step(monkeypatch, "finish_step", 1, signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    result = train(folder, *OPTIONS)
    assert result.exit_code == 130
    assert "rsearch: stopped by Ctrl-C after a complete step; --resume continues" in result.stderr
    assert checkpoints(folder) == ["checkpoint-1"]
    assert signal.getsignal(signal.SIGINT) is before


def test_sighup_finishes_the_step_and_has_its_own_code(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    at_step(monkeypatch, "roll_out", 2, signal.SIGHUP, signal.SIGHUP)
    result = train(folder, *OPTIONS)
    assert result.exit_code == 129
    assert result.stderr.splitlines()[-1].startswith(
        "rsearch: stopped by SIGHUP after a complete step"
    )
    assert checkpoints(folder)[-1] == "checkpoint-2"


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch, whole):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, "roll_out", 2, signal.SIGINT, signal.SIGINT)
        result = train(folder, *OPTIONS)
    assert result.exit_code == 130
    checkpoint = folder / "checkpoint-1"
    said = f"rsearch: stopped by Ctrl-C at once; --resume continues from {checkpoint}"
    assert result.stderr.splitlines()[-1] == said
    resume(folder)
    assert outcome(folder) == whole


def test_a_signal_in_the_last_step_leaves_the_evaluation_to_the_resumed_run(
    tmp_path, monkeypatch, whole
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, "roll_out", STEPS, signal.SIGTERM)
        assert train(folder, *OPTIONS).exit_code == 143
    assert checkpoints(folder)[-1] == f"checkpoint-{STEPS}"
    assert "evaluating before" not in resume(folder)
    assert outcome(folder) == whole


VALIDATED = [*OPTIONS, "--set", "evaluate.every_steps=2", "--set", "evaluate.slice=4"]


def validated_steps(folder: Path) -> list[int]:
    return [row["step"] for row in read_rows(folder, "validation.jsonl")]


def test_a_validation_ends_at_once_and_the_step_before_it_is_saved(tmp_path, monkeypatch, whole):
    folder, score = tmp_path / "run", training.score_slice

    def interrupted(*arguments):
        if checkpoints(folder):  # of step 1: the validation after step 2 is under way
            send(signal.SIGINT)
        return score(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "score_slice", interrupted)
        result = train(folder, *VALIDATED)
    assert result.exit_code == 130
    said = (
        f"rsearch: stopped by Ctrl-C at once; 2 steps are finished and saved in "
        f"{folder / 'checkpoint-2'}; --resume continues from there"
    )
    assert result.stderr.splitlines()[-1] == said
    assert validated_steps(folder) == [0]
    resume(folder)
    assert validated_steps(folder) == [0, 2, 4]
    assert outcome(folder) == whole


@pytest.mark.parametrize(("step", "done"), [(2, [0]), (STEPS, [0, 2])])
def test_a_signal_in_a_step_leaves_its_validation_to_the_resumed_run(
    tmp_path, monkeypatch, whole, step, done
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, "roll_out", step, signal.SIGTERM)
        assert train(folder, *VALIDATED).exit_code == 143
    assert checkpoints(folder)[-1] == f"checkpoint-{step}"
    assert validated_steps(folder) == done
    resume(folder)
    assert validated_steps(folder) == [0, 2, 4]
    assert outcome(folder) == whole


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_an_evaluation_ends_at_once(tmp_path, monkeypatch, number, code, name):
    def score(*_):
        send(number)

    monkeypatch.setattr(answering, "score_trajectory", score)
    folder = tmp_path / "run"
    result = train(folder, *OPTIONS)
    assert result.exit_code == code
    said = f"rsearch: stopped by {name} at once; --resume starts with the first step"
    assert result.stderr.splitlines()[-1] == said
    assert not (folder / "predictions").exists()


def test_an_evaluation_that_is_half_there_is_made_again(run, whole):
    (run / "predictions" / "before-sampled.jsonl").unlink()
    assert "evaluating before training" in resume(run)
    assert outcome(run) == whole


def test_a_checkpoint_cut_in_half_is_set_aside_for_the_one_before(run, whole):
    weights = run / "checkpoint-3" / "adapter_model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size // 2)
    said = (
        f"checkpoint-3 is not used: adapter_model.safetensors has {size // 2} bytes where {size} "
        "were written; renamed to checkpoint-3.damaged"
    )
    assert f"warning: {said}" in resume(run).splitlines()
    assert outcome(run) == whole


def test_a_checkpoint_without_one_of_its_files_is_set_aside(run, whole):
    (run / "checkpoint-3" / "rng_state.pth").unlink()
    said = "checkpoint-3 is not used: rng_state.pth is missing; renamed to checkpoint-3.damaged"
    assert f"warning: {said}" in resume(run).splitlines()
    assert outcome(run) == whole


def test_without_a_whole_checkpoint_the_run_starts_again(run, whole):
    for name in checkpoints(run):
        (run / name / "optimizer.pt").write_bytes(b"")
    assert resume(run).count("is not used: optimizer.pt has 0 bytes") == 2
    assert outcome(run) == whole


def test_a_torn_metrics_row_is_measured_again(run, whole):
    metrics = run / "metrics.jsonl"
    os.truncate(metrics, metrics.stat().st_size - 20)
    said = "checkpoint-3 is not used: metrics.jsonl ends at step 2; renamed to checkpoint-3.damaged"
    assert f"warning: {said}" in resume(run).splitlines()
    assert outcome(run) == whole


def test_trajectories_that_were_cut_are_noticed(run, whole):
    file = run / "trajectories.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:13]))  # 8 of step 1, and 5 of the 8 of step 2
    said = (
        "trajectories.jsonl lacks rows of 2 of the 3 finished steps, the first is step 2; the run "
        "continues without them"
    )
    assert f"warning: {said}" in resume(run).splitlines()
    assert [row["step"] for row in read_rows(run, "trajectories.jsonl")].count(4) == 8
    assert outcome(run)["metrics"] == whole["metrics"]


def test_metrics_that_are_lost_are_noticed_and_damaged_ones_kept(run, whole):
    file = run / "metrics.jsonl"
    first, *others = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"\x00" * len(first) + b"\n" + b"".join(others))
    damaged = file.read_bytes()
    lines = resume(run).splitlines()
    said = "metrics.jsonl is damaged in line 1; a copy is kept as metrics.jsonl.damaged"
    assert f"warning: {said}" in lines
    said = "metrics.jsonl lacks rows of 3 of the 3 finished steps, the first is step 1; the run "
    assert f"warning: {said}continues without them" in lines
    assert (run / "metrics.jsonl.damaged").read_bytes() == damaged
    assert outcome(run)["adapter"] == whole["adapter"]


KILLED_BETWEEN_WRITING_AND_NAMING = """
import os, signal, sys
from rsearch_cli.app import app

rename = os.replace

def replace(source, target):
    if str(target).endswith("checkpoint-2"):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)

os.replace = replace
app(["train", *sys.argv[1:]])
"""


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, whole):
    folder = tmp_path / "run"
    script = [sys.executable, "-c", KILLED_BETWEEN_WRITING_AND_NAMING]
    killed = run_loaded([*script, "--output-dir", str(folder), *OPTIONS], text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoints(folder) == ["checkpoint-1"]
    assert (folder / ".partial" / "checkpoint-2" / "optimizer.pt").exists()
    resume(folder)
    assert not (folder / ".partial").exists()
    assert outcome(folder) == whole


SMALL_DISK = """
import os, shutil, subprocess, sys
from pathlib import Path
from typer.testing import CliRunner
from rsearch_cli.app import app

disk, out, *options = sys.argv[1:]
mount = ["mount", "-t", "tmpfs", "none", disk, "-o"]
subprocess.run([*mount, "size=5m"], check=True)
run = Path(disk, "run")
full = CliRunner().invoke(app, ["train", "--output-dir", str(run), *options])
Path(out, "full.txt").write_text(full.stderr)
Path(out, "code.txt").write_text(str(full.exit_code))
shutil.copytree(run, Path(out, "full"))
subprocess.run([*mount, "remount,size=50m"], check=True)
resume = ["--recipe", str(run / "recipe.yaml"), "--output-dir", str(run), "--resume"]
assert CliRunner().invoke(app, ["train", *resume]).exit_code == 0
shutil.copytree(run, Path(out, "resumed"))
"""


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(tmp_path, whole):
    own_mounts = ["unshare", "--map-root-user", "--mount"]
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        trial = ["mount", "-t", "tmpfs", "none", str(disk)]
        subprocess.run([*own_mounts, *trial], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    script = [*own_mounts, sys.executable, "-c", SMALL_DISK, str(disk), str(tmp_path)]
    done = subprocess.run([*script, *OPTIONS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "code.txt").read_text() == "73"
    last = (tmp_path / "full.txt").read_text().splitlines()[-1]
    run = disk / "run"
    assert last.startswith(f"rsearch: checkpoint-2 could not be written in {run}: ")
    assert last.endswith(
        f" MB free); free some space, then --resume continues from {run}/checkpoint-1"
    )
    full = tmp_path / "full"
    assert checkpoints(full) == ["checkpoint-1"]
    assert find_damage(full / "checkpoint-1") is None
    assert not (full / ".partial").exists()
    assert outcome(tmp_path / "resumed") == whole
