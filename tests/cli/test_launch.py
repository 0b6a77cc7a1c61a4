"""Several processes from one command: their command lines, their exit codes, their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.workflows import launch


def test_the_flags_that_are_read_here_are_not_handed_on() -> None:
    line = [
        "train",
        "--num-processes",
        "2",
        "--lr",
        "1e-4",
        "--accelerate-config=a.yaml",
        "--resume",
    ]
    assert launch.without_launch_flags(line) == ["train", "--lr", "1e-4", "--resume"]


def run(rank_0: str, rank_1: str) -> int:
    """Run a script in each of two processes."""
    script = f"import os, sys\nif os.environ['RANK'] == '0':\n {rank_0}\nelse:\n {rank_1}"
    return launch.run_workers(["-c", script], 2)


def test_when_all_are_done_so_is_it() -> None:
    assert run("pass", "assert os.environ['WORLD_SIZE'] == '2'") == 0


def test_when_one_fails_the_others_are_ended_and_its_code_counts(
    capfd: pytest.CaptureFixture[str],
) -> None:
    started = time.monotonic()
    assert run("import time; time.sleep(600)", "sys.exit(80)") == 80
    assert time.monotonic() - started < 60
    assert capfd.readouterr().err == "", "what there is to say the process has said"


def test_a_bug_in_one_process_does_not_hide_the_error_of_another() -> None:
    assert launch._exit_code([1, 80, -15]) == 80


def test_a_process_that_was_killed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert run("import signal; os.kill(os.getpid(), signal.SIGKILL)", "pass") == 137
    assert "was ended by signal 9; the last checkpoint is complete" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_lets_the_processes_save_and_is_sent_once(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C goes from the terminal to the whole group, the others to the launcher alone."""
    worker = f"""
import os, pathlib, signal, sys, time
times = []
signal.signal({int(number)}, lambda *_: times.append(1))
folder = pathlib.Path({str(tmp_path)!r})
(folder / os.environ["RANK"]).touch()
while not times:
    time.sleep(0.05)
time.sleep(1)
(folder / (os.environ["RANK"] + "-saved")).write_text(str(len(times)))
sys.exit({code})
"""
    script = f"""
import sys
from rsearch_cli.workflows.launch import run_workers
sys.exit(run_workers(["-c", {worker!r}], 2))
"""
    launcher = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    until = time.monotonic() + 90
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    send = os.killpg if number == signal.SIGINT else os.kill
    send(launcher.pid, number)
    assert launcher.wait(60) == code
    assert [(tmp_path / f"{rank}-saved").read_text() for rank in (0, 1)] == ["1", "1"]


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.yaml")
    line = ["train", "--recipe", "quickstart", "--accelerate-config", missing]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 11
    assert f"--accelerate-config: {missing} does not exist; write it with" in result.stderr
