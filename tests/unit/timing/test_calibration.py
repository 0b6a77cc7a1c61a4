"""What a finished run says about its time, and predictions that are scaled to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsearch_cli.errors import UsageError
from rsearch_cli.recipe.loading import dump_recipe, load_recipe
from rsearch_cli.timing.calibration import read_run
from rsearch_cli.timing.devices import CPU
from rsearch_cli.workflows.estimate import estimate

STEPS = 4
SECONDS = {"generate": 10.0, "search": 0.5, "reward": 0.25, "update": 20.0}
PHASES = {"start": 5.0, "before": 8.0, "training": 130.0, "after": 12.0}
SETTINGS = ("train.max_steps=4", "evaluate.limit=20")


def write_rows(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of the quickstart, of which the first step compiled."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(load_recipe("quickstart", SETTINGS).recipe))
    (folder / "environment.json").write_text('{"device": "cpu", "backend": "transformers"}')
    (folder / "summary.json").write_text(json.dumps({"phase_seconds": PHASES}))
    rows = [{f"seconds/{part}": value for part, value in SECONDS.items()} for _ in range(STEPS)]
    rows[0]["seconds/update"] = 300.0
    write_rows(folder / "metrics.jsonl", rows)
    parts = [("model", 30), ("system", 20), ("model", 8), ("system", 1)]
    segments = [{"author": author, "tokens": tokens} for author, tokens in parts]
    rollout = {"prompt_tokens": 12, "segments": segments, "rounds": [{"results": [{}]}]}
    write_rows(folder / "trajectories.jsonl", [rollout] * 64)
    write_rows(folder / "predictions/before-greedy.jsonl", [{}] * 20)
    return folder


def predict(run: Path, *settings: str):
    recipe = load_recipe("quickstart", (*SETTINGS, *settings)).recipe
    return estimate(recipe, calibrate=run).time


def test_the_first_step_is_left_out(run) -> None:
    measured = read_run(run)
    assert (measured.step, measured.steps) == (SECONDS, STEPS - 1)
    assert (measured.device, measured.backend, measured.evaluated) == (CPU, "transformers", 20)
    assert measured.lengths.prompt == 12


def test_the_same_run_is_predicted_as_it_was_measured(run) -> None:
    told = predict(run)
    for part, seconds in SECONDS.items():
        assert told.seconds[part] == pytest.approx(STEPS * seconds)
    assert told.seconds["start"] == pytest.approx(5)
    assert told.seconds["evaluation before"] == told.seconds["evaluation after"]
    assert told.seconds["evaluation before"] == pytest.approx(10)
    assert sum(told.low.values()) < sum(told.seconds.values()) < sum(told.high.values())


def test_more_steps_and_questions_take_as_much_more(run) -> None:
    once, more = predict(run), predict(run, "train.max_steps=12", "evaluate.limit=40")
    for part in SECONDS:
        assert more.seconds[part] == pytest.approx(3 * once.seconds[part])
    ratio = more.seconds["evaluation after"] / once.seconds["evaluation after"]
    assert 1.2 < ratio < 2  # a batch of twice the rows takes less than twice as long


def test_a_run_without_a_summary_has_the_times_of_its_steps(run) -> None:
    (run / "summary.json").unlink()
    told = predict(run)
    assert told.seconds["update"] == pytest.approx(STEPS * SECONDS["update"])
    # Answers are generated as in a step.
    assert told.seconds["evaluation before"] < told.seconds["generate"]


@pytest.mark.parametrize("missing", ["metrics.jsonl", "trajectories.jsonl"])
def test_a_run_without_measured_steps_is_told(run, missing) -> None:
    (run / missing).unlink()
    with pytest.raises(UsageError, match="has no step after the first, which compiles"):
        read_run(run)


def test_a_folder_without_a_run_is_told(tmp_path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        read_run(tmp_path)


def test_a_card_that_is_not_known_cannot_be_compared(run) -> None:
    environment = {"device": "NVIDIA T4", "backend": "unsloth"}
    (run / "environment.json").write_text(json.dumps(environment))
    assert "name the one to predict for with --card" in predict(run)
