"""The viewer served: it follows a run, and keeps the reader's place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stored_rows import prediction, rollout, store_run

from rsearch_cli.runs.jsonl import append_rows


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = store_run(tmp_path / "one", group(1))
    append_rows(folder / "metrics.jsonl", [{"step": 1, "reward": 0.5, "entropy": 0.25}])
    return folder


@pytest.fixture
def url(run_folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "rsearch_cli", "view", str(run_folder), "--serve", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def group(step: int) -> list[dict[str, Any]]:
    return [rollout(step, f"q{step}", total) for total in (1.0, 0.0)]


def test_rows_arrive_and_the_place_stays(
    new_page: Callable[..., Any], url: str, run_folder: Path
) -> None:
    page = new_page()
    page.goto(f"{url}#/0/rows?reward=0.5~")
    counts = page.locator(".counts strong")
    counts.filter(has_text="1 of 2 trajectories").wait_for()
    assert page.locator("#live").inner_text() == "live"
    page.locator(".table-box").focus()
    page.keyboard.press("Home")
    append_rows(run_folder / "trajectories.jsonl", group(2))
    counts.filter(has_text="2 of 4 trajectories").wait_for()
    focused = "document.activeElement.closest('tr')?.dataset.place"
    assert page.evaluate(focused) == "0"
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Where was q2 born?").wait_for()
    page.get_by_role("link", name="Its group").click()
    page.locator(".completion").nth(1).wait_for()


def test_curves_grow_until_the_run_is_finished(
    new_page: Callable[..., Any], url: str, run_folder: Path
) -> None:
    page = new_page()
    page.goto(url)
    chart = page.get_by_role("slider", name="Entropy")
    chart.wait_for()
    page.get_by_label("Smooth").check()
    append_rows(run_folder / "metrics.jsonl", [{"step": 2, "reward": 0.75, "entropy": 0.125}])
    page.get_by_text("step 2").first.wait_for()
    assert page.get_by_label("Smooth").is_checked()
    append_rows(run_folder / "predictions/after-greedy.jsonl", [prediction()])
    (run_folder / "summary.json").write_text(json.dumps({"model": "nano", "steps": 2}))
    page.get_by_text("finished", exact=True).wait_for()


def test_a_server_that_is_gone_is_said(new_page: Callable[..., Any], watch: Any, url: str) -> None:
    page = new_page()
    page.goto(f"{url}#/0/rows")
    page.locator(".counts").wait_for()
    page.route("**/data/*", lambda route: route.abort())
    watch.allow("ERR_FAILED")
    page.get_by_text("connection lost").wait_for()
    page.unroute("**/data/*")
    page.get_by_text("live", exact=True).wait_for()
