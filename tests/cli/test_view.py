"""`rsearch view`: the path on stdout, one line for bad input, a server that ends quietly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from stored_rows import prediction, rollout, store_evaluation, store_run
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.runs.jsonl import append_rows
from rsearch_cli.runs.run_folder import RunFolder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return store_run(tmp_path / "runs" / "one", [rollout()], after_greedy=[prediction()])


def view(*arguments: str | Path):
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["view", *map(str, arguments)])


def test_the_path_of_the_file_is_the_only_output(run_folder: Path, tmp_path: Path) -> None:
    done = view(run_folder)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{run_folder / 'view.html'}\n"
    assert (run_folder / "view.html").stat().st_size > 20_000
    elsewhere = tmp_path / "both.html"
    evaluation = store_evaluation(tmp_path / "evaluation", [prediction()])
    assert view(run_folder, evaluation, "-o", elsewhere).stdout == f"{elsewhere}\n"
    assert elsewhere.exists()


def test_the_file_is_in_the_way_of_nothing(run_folder: Path, tmp_path: Path) -> None:
    evaluation = store_evaluation(tmp_path / "evaluation", [prediction()])
    for folder in (run_folder, evaluation):
        assert view(folder).exit_code == 0
    RunFolder(run_folder).check(overwrite=True, resume=False)
    RunFolder(run_folder).check(overwrite=False, resume=True)
    (evaluation / "evaluation.json").unlink()
    EvaluationFolder(evaluation).check()
    RunFolder(run_folder).open(resume=False)
    assert not (run_folder / "view.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 70, "nowhere cannot be read: No such file or directory"),
        (["."], 70, "neither a run nor an evaluation (no recipe.yaml"),
        (["runs/one", "-o", "missing/x.html"], 71, "missing/x.html cannot be written"),
        (["runs/one", "-o", "notes.txt"], 71, "notes.txt was not written by rsearch view"),
        (["runs/one", "--serve", "-o", "x.html"], 2, "leave out --output"),
        (["runs/one", "--port", "80"], 2, "--port is for --serve"),
        ([], 2, "Missing argument"),
    ],
)
def test_bad_input_is_one_line_with_its_code(
    arguments, code, words, run_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    done = view(*arguments)
    assert done.exit_code == code, done.stderr
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert not Path("x.html").exists()


def test_a_damaged_line_is_one_warning_and_the_rest_is_shown(run_folder: Path) -> None:
    with (run_folder / "trajectories.jsonl").open("a") as file:
        file.write("{broken\n")
    append_rows(run_folder / "trajectories.jsonl", [rollout(2)])
    done = view(run_folder)
    assert done.exit_code == 0
    assert done.stderr.count("\n") == 1
    assert "trajectories.jsonl, line 2: not a row of rsearch; left out" in done.stderr


def test_a_server_that_cannot_read_a_folder_ends_with_its_code(run_folder: Path) -> None:
    (run_folder / "metrics.jsonl").symlink_to("/etc/passwd")
    done = view(run_folder, "--serve", "--port=0")
    assert (done.exit_code, done.stdout) == (70, "")
    assert "metrics.jsonl is a link" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs Unix signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_follows_a_run_and_ends_quietly(run_folder: Path, number: int) -> None:
    command = [sys.executable, "-m", "rsearch_cli", "view", str(run_folder), "--serve", "--port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        url = server.stdout.readline().strip()
        try:
            assert fetch(url).startswith(b"<!doctype html>")
            append_rows(run_folder / "trajectories.jsonl", [rollout(2)])
            index = json.loads(fetch(f"{url}data/index.json"))
            assert index["sources"][0]["rows"]["count"] == 3
        finally:
            server.send_signal(number)
        assert server.wait(20) == 0
        assert server.stderr.read().strip() == "press Ctrl-C to stop"
        assert server.stdout.read() == ""


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as reply:
        return reply.read()
