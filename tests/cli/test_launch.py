"""Several processes from one command: their command lines, their exit codes, their end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.workflows import launch


def start(*scripts: str) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]


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


def test_when_all_are_done_so_is_it() -> None:
    assert launch._watch(start("pass", "pass")) == 0


def test_when_one_fails_the_others_are_ended_and_its_code_counts() -> None:
    started = start("import sys; sys.exit(80)", "import time; time.sleep(600)")
    assert launch._watch(started) == 80
    assert started[1].poll() is not None


@pytest.mark.usefixtures("messages_on_stderr")
def test_a_process_that_was_killed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert launch._watch(start(killed, "pass")) == 137
    assert "was ended by signal 9; the last checkpoint is whole" in capsys.readouterr().err


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.yaml")
    line = ["train", "--recipe", "quickstart", "--accelerate-config", missing]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 11
    assert f"--accelerate-config: {missing} is no file; write one with" in result.stderr
