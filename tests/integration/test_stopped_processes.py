"""A process that is stopped (Ctrl-Z, SIGSTOP) and holds a lock, at every lock that there is."""

from __future__ import annotations

import asyncio
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsearch_cli.errors import RunFolderOccupied
from rsearch_cli.runs import file_locks as locks
from rsearch_cli.runs.files import SPEND_LOCK
from rsearch_cli.services import singleflight as flight
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache, make_key
from rsearch_cli.services.singleflight import SingleFlight

HANG_GUARD = 120.0
KEY = make_key("exa", query="x")

pytestmark = [
    pytest.mark.usefixtures("messages_on_stderr"),
    pytest.mark.skipif(
        not Path("/proc/locks").exists(), reason="this system does not list its locks"
    ),
]

HOLD_FILE = """
import filelock, sys
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_REQUEST = """
import asyncio, sys
from pathlib import Path
from rsearch_cli.services.singleflight import SingleFlight
async def work():
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(SingleFlight(Path(sys.argv[1]) / "locks").run("key", work))
"""
HOLD_DATABASE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waits of at most three seconds, and nothing logged before."""
    monkeypatch.setattr(locks, "MAX_WAIT_SECONDS", 3.0)
    monkeypatch.setattr(flight, "MAX_WAIT_SECONDS", 3.0)
    monkeypatch.setattr(locks, "_warned", {})
    yield
    locks.allow_waits()


@pytest.fixture
def hold() -> Iterator:
    """Start a script that takes a lock, and stop it there; its id."""
    started: list[subprocess.Popen] = []

    def start(script: str, *arguments: object) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def holder(pid: int, command: str = "python") -> str:
    return f"process {pid} on {platform.node()} ({command}"


def test_the_budget_says_who_holds_it_and_ends_with_the_code_of_a_lock(
    hold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = hold(HOLD_FILE, tmp_path / SPEND_LOCK)
    started = time.monotonic()
    with Budget(tmp_path, 1.0) as budget, pytest.raises(RunFolderOccupied) as raised:
        budget.reserve("exa", 0.01)
    assert 2.5 < time.monotonic() - started < 20
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line.startswith(f"warning: waiting for {holder(pid)}") and "; in 1 s this run ends" in line
    )
    assert f"it is stopped, `kill -CONT {pid}` resumes it" in line
    assert f"is locked by {holder(pid)}" in str(raised.value)
    assert RunFolderOccupied.exit_code == 72


def test_a_request_that_a_stopped_process_makes_is_made_here(
    hold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = hold(HOLD_REQUEST, tmp_path)

    async def work() -> str:
        return "asked"

    started = time.monotonic()
    assert asyncio.run(SingleFlight(tmp_path / "locks").run("key", work)) == "asked"
    assert 2.5 < time.monotonic() - started < 20
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: waiting for {holder(pid)}")
    assert line.endswith("; in 1 s this process sends it itself")


def test_a_cache_whose_opening_is_held_up_is_used_if_it_is_there(
    hold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with AnswerCache(tmp_path / "answers") as cache:
        cache.put(KEY, "answer")
    pid = hold(HOLD_FILE, tmp_path / ".answers.lock")
    with AnswerCache(tmp_path / "answers") as cache:
        assert cache.get(KEY) == "answer" and cache.usable
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: waiting for {holder(pid)}") and line.endswith(
        "this process continues"
    )


def test_a_cache_that_cannot_be_made_is_done_without(
    hold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = hold(HOLD_FILE, tmp_path / ".answers.lock")
    with AnswerCache(tmp_path / "answers") as cache:
        assert cache.put(KEY, "answer").value == "answer"
        assert not cache.usable
    waiting, given_up = capsys.readouterr().err.splitlines()
    assert waiting.startswith(f"warning: waiting for {holder(pid)}")
    assert f"cannot be used ({holder(pid)}" in given_up


@pytest.mark.parametrize("opened", [True, False])
def test_a_cache_that_a_stopped_process_writes_into_is_done_without(
    hold, tmp_path: Path, capsys: pytest.CaptureFixture[str], opened: bool
) -> None:
    with AnswerCache(tmp_path / "answers") as cache:
        cache.put(KEY, "answer")
        if not opened:
            cache.close()
        pid = hold(HOLD_DATABASE, tmp_path / "answers" / "cache.db")
        started = time.monotonic()
        assert cache.put(make_key("exa", query="y"), "other").value == "other"
        assert 2.5 < time.monotonic() - started < 20
        cache.put(make_key("exa", query="z"), "other")
        assert time.monotonic() - started < 20, "it waits once"
        assert not cache.usable
    waiting, given_up = capsys.readouterr().err.splitlines()
    assert waiting.startswith(f"warning: waiting for {holder(pid)}")
    assert f"cannot be used ({holder(pid)}" in given_up


def test_an_import_does_not_wait_for_ever_for_a_stopped_writer(
    hold, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with AnswerCache(tmp_path / "answers") as cache:
        cache.put(KEY, [])
        rows = list(cache.export_rows())
        hold(HOLD_DATABASE, tmp_path / "answers" / "cache.db")
        started = time.monotonic()
        assert cache.import_rows(rows) == 0 and not cache.usable
        assert 2.5 < time.monotonic() - started < 20
    assert "writes into it); continuing without it" in capsys.readouterr().err


def test_a_writer_that_is_only_slow_is_waited_for(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "answers") as cache:
        cache.put(KEY, "answer")
        database = tmp_path / "answers" / "cache.db"
        connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        import threading

        threading.Timer(1.2, lambda: connection.execute("ROLLBACK")).start()
        cache.put(KEY, "newer")
        assert cache.usable and cache.get(KEY) == "newer"
        connection.close()


class Command:
    """A real `rsearch` process and what it says on stderr."""

    def __init__(self, *arguments: object) -> None:
        settings = ("questions.world.train_regions=2", "questions.world.held_out_regions=1")
        options = [
            part for s in (*settings, "policy.backend=transformers") for part in ("--set", s)
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rsearch_cli", *map(str, arguments), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def wait_for(self, text: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return line
        raise AssertionError(f"it never said {text!r}")

    def end(self) -> list[str]:
        """What it says until it ends."""
        return self.process.communicate(timeout=HANG_GUARD)[1].splitlines()


def test_the_first_ctrl_c_ends_the_wait_of_a_command(hold, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    pid = hold(HOLD_FILE, out / SPEND_LOCK)
    command = Command("eval", "--recipe", "quickstart", "--limit", 4, "--output-dir", out)
    assert holder(pid) in command.wait_for("waiting for process")
    started = time.monotonic()
    command.process.send_signal(signal.SIGINT)
    lines = command.end()
    assert time.monotonic() - started < 15, "it would go on waiting for half a minute"
    assert command.process.returncode == 130, lines
    assert lines[-1].startswith("rsearch: stopped by Ctrl-C at once; ")


def test_a_run_folder_and_an_evaluation_folder_say_who_works_in_them(tmp_path: Path) -> None:
    commands = {
        "train": ("train", "--recipe", "quickstart", "--output-dir"),
        "eval": ("eval", "--recipe", "quickstart", "--output-dir"),
    }
    for name, command in commands.items():
        folder = tmp_path / name
        first = Command(*command, folder)
        first.wait_for("loading" if name == "train" else "evaluating rsearch: ")
        first.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        second = Command(*command, folder)
        line = second.end()[-1]
        assert time.monotonic() - started < HANG_GUARD / 2
        assert second.process.returncode == 72
        assert holder(first.process.pid, f"rsearch {name}") in line
        assert f"`kill -CONT {first.process.pid}`" in line
        first.process.kill()
        first.process.communicate()


def test_a_process_of_another_machine_is_another_process(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert locks.describe_holder(tmp_path / "lock") == "another process"
    assert locks.describe_holder(tmp_path / "none") == "another process"
