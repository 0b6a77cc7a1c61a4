"""What a finished run says about its time, and predictions that are scaled to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.errors import UsageError
from rsearch_cli.policy.resolve import BUILTIN_FOLDER
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
    assert told.seconds["start"] == pytest.approx(5 + 280)  # and what the first step compiled
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


def ran_on(run: Path, device: str, backend: str = "unsloth") -> None:
    (run / "environment.json").write_text(json.dumps({"device": device, "backend": backend}))


def test_a_run_predicts_for_its_own_card_even_if_that_is_not_known(run) -> None:
    ran_on(run, "NVIDIA T4")
    told = predict(run)
    assert (told.device.name, told.backend) == ("NVIDIA T4", "unsloth")
    for part, seconds in SECONDS.items():
        assert told.seconds[part] == pytest.approx(STEPS * seconds)


def test_what_a_run_shares_with_the_one_it_predicts_may_not_differ(run) -> None:
    def refusal(*settings: str, card: str | None = None) -> str:
        recipe = load_recipe("quickstart", (*SETTINGS, *settings)).recipe
        with pytest.raises(UsageError) as refused:
            estimate(recipe, calibrate=run, card=card)
        return str(refused.value)

    other = refusal("policy.model=some/7B", "policy.max_seq_length=900", card="rtx-4090")
    assert (
        "differs from the run to predict in policy.model (builtin:nano there, some/7B here), "
        in other
    )
    assert "device (cpu there, rtx-4090 here); calibrate with a few steps" in other
    assert other.endswith("rsearch train --recipe NAME --max-steps 5")
    assert "policy.adapter (null there, runs/x here)" in refusal("policy.adapter=runs/x")
    assert "back end (transformers there, unsloth here)" in refusal("policy.backend=unsloth")
    longer = refusal("rollout.max_new_tokens=99", "rollout.max_turns=2", "search.top_k=9",
                     "search.sources.News.type=exa", "policy.max_seq_length=900")  # fmt: skip
    assert "in policy.max_seq_length (512 there, 900 here), " in longer
    assert ", 2 more; calibrate" in longer
    prompt = refusal("protocol.system_prompt=" + 9 * "Two words.\n\n")
    assert "\n" not in prompt and " there, Two words. Two words. Two words. here); " in prompt
    ran_on(run, "NVIDIA H200")
    assert "device (h200 there, h100 here)" in refusal(card="h100")
    assert predict(run).device.name == "h200"


def test_a_short_run_is_told_in_seconds(run) -> None:
    def show(*settings: str) -> str:
        given = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
        command = ["estimate", "--recipe", "quickstart", "--calibrate", str(run), *given]
        return CliRunner(env={"COLUMNS": "120"}).invoke(app, command).stdout

    for settings, unit, update in (
        ((), "SECONDS", "80.0   66.7   96.0"),
        (("train.max_steps=40",), "MINUTES", "13.3  11.1  16.0"),
        (("train.max_steps=400",), "HOURS", "2.22  1.85  2.67"),
    ):
        lines = show(*settings).partition(f"TIME ON CPU, transformers{' ' * 3}")[2].splitlines()
        assert lines[0].split() == [unit, "LOW", "HIGH"]
        assert next(x for x in lines if "update" in x).split()[-3:] == update.split()
        assert next(x for x in lines if x.startswith(unit.lower()))
    assert "3 measured steps of this model on this device" in show()
    assert "80 s are assumed for the start" not in show()
    (run / "summary.json").unlink()
    assert "That run has not ended: 80 s are assumed for the start" in show()


@pytest.mark.stack  # weights are identified by reading them
def test_a_model_folder_may_have_another_path_where_the_run_is_from(run, tmp_path) -> None:
    def calibrate(model: Path):
        recipe = load_recipe("quickstart", SETTINGS, {"policy.model": str(model)}).recipe
        return estimate(recipe, calibrate=run).time

    here = tmp_path / "here" / "nano"
    here.parent.mkdir()
    here.symlink_to(BUILTIN_FOLDER / "nano")
    recorded = load_recipe("quickstart", SETTINGS, {"policy.model": "/elsewhere/nano"}).recipe
    (run / "recipe.yaml").write_text(dump_recipe(recorded))
    assert calibrate(here).seconds["update"] == pytest.approx(STEPS * SECONDS["update"])
    # Of two folders that are here, both called so, each is its own model.
    other = tmp_path / "nano"
    shutil.copytree(BUILTIN_FOLDER / "nano", other)
    (run / "recipe.yaml").write_text(
        dump_recipe(load_recipe("quickstart", SETTINGS, {"policy.model": str(here)}).recipe)
    )
    with pytest.raises(UsageError, match=r"policy\.model"):
        calibrate(other)
