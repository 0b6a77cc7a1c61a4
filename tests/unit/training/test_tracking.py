"""What is sent to W&B, and that nothing that goes wrong there reaches the run."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.services import WandbConfig
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.tracking import COLUMNS, Tracker, open_tracker, without_secrets

KEY = "0123456789abcdef0123456789abcdef01234567"
NODE = {"label": "A", "query": "Emma author", "source": "General"}
ROLLOUT = {
    "question": "Who wrote Emma?",
    "answers": ["Jane Austen", "Austen"],
    "answer": None,
    "reward": {"answer": 0.0, "plan": 1.0, "format": 0.5, "total": 0.25},
    "opening": "<think>",
    "segments": [{"text": " so " * 5000}, {"text": "</think>"}],
    "rounds": [
        {"results": [NODE, {**NODE, "label": "B"}], "edges": [["A", "B"]], "problems": []},
        {"results": [], "edges": [], "problems": ["no node"]},
    ],
}


class Recorder:
    """Takes what a run is given, the way wandb's does."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, float] = {}
        self.exit_code: int | None = None

    def log(self, row: dict[str, Any], step: int) -> None:
        self.step = step
        self.rows.append((step, row))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


def track(run: object, **settings: float) -> Tracker:
    return Tracker(WandbConfig(**settings), RunFolder(Path("none")), run)


def metrics(step: int) -> dict[str, Any]:
    return {"step": step, "reward": 0.5, "reward/plan": 1.0, "kl": None, "alarms": ["truncated"]}


def test_a_step_sends_its_figures_and_every_few_steps_a_table_with_plans() -> None:
    run = Recorder()
    tracker = track(run, table_every_steps=3, table_rows=2)
    for step in range(1, 5):
        tracker.on_step(metrics(step), [ROLLOUT] * 4)
    tracker.close(exit_code=0)
    assert run.exit_code == 0
    assert run.rows[1] == (2, {"step": 2.0, "reward": 0.5, "reward/plan": 1.0, "alarms": 1.0})
    assert [step for step, row in run.rows if "trajectories" in row] == [1, 3]
    table = run.rows[2][1]["trajectories"]
    assert table.columns == list(COLUMNS) and len(table.data) == 2
    cells = dict(zip(COLUMNS, table.data[0], strict=True))
    assert cells["plan"] == (
        "A: Emma author (General)\nB: Emma author (General)\nA -> B\n\ninvalid: no node"
    )
    assert (cells["references"], cells["answer"]) == ("Jane Austen | Austen", "")
    assert (cells["reward"], cells["plan score"], cells["step"]) == (0.25, 1.0, 3)
    assert cells["transcript"].startswith("<think> so") and len(cells["transcript"]) < 4100


def test_further_parts_have_columns_of_their_own() -> None:
    run = Recorder()
    tracker = track(run)
    scored = {**ROLLOUT, "reward": {**ROLLOUT["reward"], "extra": {"retrieval": 0.5}}}
    absent = {**ROLLOUT, "reward": {**ROLLOUT["reward"], "extra": {}}}
    tracker.on_step(metrics(1), [scored, absent])
    tracker.close(exit_code=0)
    table = run.rows[0][1]["trajectories"]
    assert table.columns == [*COLUMNS, "retrieval score"]
    assert [row[-1] for row in table.data] == [0.5, None]


def test_no_table_is_sent_where_none_is_wanted() -> None:
    run = Recorder()
    tracker = track(run, table_rows=0)
    tracker.on_step(metrics(1), [ROLLOUT])
    tracker.close(exit_code=0)
    assert "trajectories" not in run.rows[0][1]


def test_a_validation_and_the_outcome_are_sent() -> None:
    run = Recorder()
    tracker = track(run)
    tracker.on_validation({"step": 4, "f1": 0.25, "n": 20}, {"step": 2, "f1": 0.5})
    block = {"em": 0.5, "em_sampled": None, "n": 20, "intervals": {}}
    tracker.log_summary({"before": block, "after": block, "difference": block, "seed": 1})
    tracker.close(exit_code=0)
    step, row = run.rows[0]
    assert (step, row["validation/f1"], row["validation/best_f1"]) == (4, 0.25, 0.5)
    assert run.summary["after/em"] == 0.5 and "seed" not in run.summary


def test_steps_that_a_resumed_run_repeats_are_not_sent_again() -> None:
    run = Recorder(step=3)
    tracker = track(run)
    for step in (2, 3, 4):
        tracker.on_step(metrics(step), [])
    tracker.close(exit_code=0)
    assert [step for step, _ in run.rows] == [3, 4]


def test_an_error_while_tracking_is_one_line_without_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)

    def fail(*_: object, **__: object) -> None:
        raise OSError(f"disk\nfull, {KEY}\x1b[2J")

    tracker = track(SimpleNamespace(step=0, log=fail, finish=fail))
    tracker.on_step(metrics(1), [ROLLOUT])
    tracker.on_step(metrics(2), [ROLLOUT])
    tracker.on_validation({"step": 2, "f1": 0.5}, {"step": 2, "f1": 0.5})
    tracker.close(exit_code=0)
    assert caplog.messages == ["W&B: tracking stopped, the run continues: disk full, ***\ufffd[2J"]


@pytest.mark.parametrize(("settings", "rank"), [((), "0"), (("wandb.enabled=true",), "1")])
def test_only_the_first_process_tracks_and_only_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], rank: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    recipe = load_recipe("quickstart", settings).recipe
    with open_tracker(recipe, RunFolder(tmp_path)) as tracker:
        tracker.on_step(metrics(1), [ROLLOUT])
        tracker.on_validation({"step": 2, "f1": 0.5}, {"step": 2, "f1": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_secrets_of_the_environment_leave_every_text() -> None:
    environment = {"MY_API_KEY": "sk-secret-1", "HF_TOKEN": "hf_secret_2", "N_TOKEN": "1", "A": "b"}
    value = {"url": "https://u:sk-secret-1@host", "list": ["hf_secret_2", 1, None], "n": "1 b"}
    assert without_secrets(value, environment) == {
        "url": "https://u:***@host",
        "list": ["***", 1, None],
        "n": "1 b",
    }


def test_a_w_and_b_that_hangs_holds_up_no_step_and_the_end_only_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hung = threading.Event()

    def hang(*_: object, **__: object) -> None:
        hung.wait()
        raise ConnectionError("after all")

    tracker = track(SimpleNamespace(step=0, log=hang), timeout_seconds=0.01)
    for step in range(100):
        tracker.on_step(metrics(step), [ROLLOUT])
    tracker.close(exit_code=0)
    assert caplog.messages == ["W&B: no response; what was not sent is in metrics.jsonl"]
    hung.set()
    tracker._thread.join()
    assert len(caplog.messages) == 1, "what comes after the end is nobody's concern"
