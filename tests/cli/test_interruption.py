"""Ctrl-C and SIGTERM at a real process that waits for a service which never answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loaded_process import LoadedProcess
from silent import FallingSilent, SilentServer

HANG_GUARD = 120.0  # seconds; far below what the services' own time-outs and retries add up to
WAITING = (
    "stopping: requests in flight may already be paid for and get 5 s to finish; press Ctrl-C "
    "again to stop now"
)
FINISHING = "finishing the step, then saving; press Ctrl-C again to stop now"
SEARCHES = VERDICTS = REPLIES = WAITING

SMALL = (
    "questions.world.train_regions=2",
    "questions.world.held_out_regions=1",
    "policy.backend=transformers",
    "train.batch_size=8",
    "train.num_generations=4",
    "evaluate.limit=4",
    *(f"{kind}.service.retries=5" for kind in ("search", "reward.judge", "policy.endpoint")),
    *(f"{kind}.service.timeout_seconds=90" for kind in ("search", "reward.judge")),
)
EXA = tuple(f"search.sources.{name}.type=exa" for name in ("General", "News", "Academy"))
JUDGE = ("reward.answer=judge", "reward.judge.skip_exact_match=false")


class Waiting:
    """A process of ours that has asked the silent server, and what it says on stderr."""

    def __init__(
        self, folder: Path, command: list[str], server: SilentServer | FallingSilent
    ) -> None:
        keys = {"EXA_API_KEY": "exa-key-for-tests", "OPENAI_API_KEY": "sk-key-for-tests"}
        urls = {"EXA_BASE_URL": server.url, "OPENAI_BASE_URL": f"{server.url}/v1"}
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._process = LoadedProcess(
            [sys.executable, "-m", "rsearch_cli", *command],
            cwd=folder,
            env={**os.environ, **keys, **urls},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not server.asked.wait(HANG_GUARD):
            self.end()
            pytest.fail(f"the service was not asked: {self.lines}")

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()

    def interrupt(self, number: signal.Signals, expected: str) -> None:
        """Send a signal, and wait until it was noticed."""
        self._process.send_signal(number)
        with self._said:
            noticed = self._said.wait_for(lambda: expected in self.lines, HANG_GUARD)
        assert noticed, f"nothing was said: {self.lines}"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int:
        code = self._process.wait(HANG_GUARD)
        self._reader.join(HANG_GUARD)
        return code

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Waiting]]:
    """Starts `rsearch` on settings; gives it once it waits for the service.

    With `tried` the service has answered the request that tries it out.
    """
    started: list[Waiting] = []
    with SilentServer() as silent, FallingSilent() as falling:

        def start(*command: str, settings: tuple[str, ...] = (), tried: bool = False) -> Waiting:
            server = falling if tried else silent
            sets = [part for each in (*SMALL, *settings) for part in ("--set", each)]
            arguments = [part.replace("SERVER", server.url) for part in (*command, *sets)]
            own = ["--recipe", "quickstart", "--output-dir", "out", "--cache-dir", "cache"]
            started.append(Waiting(tmp_path, [*arguments[:1], *own, *arguments[1:]], server))
            return started[-1]

        yield start
        for process in started:
            process.end()


@pytest.mark.parametrize(
    ("command", "hint", "number", "again"),
    [
        ("train", "--resume starts with the first step", signal.SIGINT, False),
        ("train", "--resume starts with the first step", signal.SIGTERM, True),
        ("eval", "the same command continues in out", signal.SIGINT, True),
        ("eval", "the same command continues in out", signal.SIGTERM, False),
    ],
)
def test_a_search_that_is_never_answered(start, command, hint, number, again):
    process = start(command, settings=EXA)
    process.interrupt(number, SEARCHES)
    if again:
        process.send(number)
    assert process.exit_code() == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert process.lines[-1] == f"rsearch: stopped by {name} at once; {hint}"
    assert process.lines.count(SEARCHES) == 1
    assert not any("unexpected" in line or "Error" in line for line in process.lines)


def test_a_verdict_that_is_never_given_in_a_training_step(start):
    process = start("train", settings=JUDGE, tried=True)
    process.interrupt(signal.SIGINT, FINISHING)
    process.send(signal.SIGINT)
    assert process.exit_code() == 130
    hint = "--resume starts with the first step"
    assert process.lines[-1] == f"rsearch: stopped by Ctrl-C at once; {hint}"
    assert VERDICTS not in process.lines, "the second one waits for nothing"


CHATS = pytest.mark.parametrize(
    ("settings", "options", "line"),
    [
        (JUDGE, ("--judge",), VERDICTS),
        ((), ("--endpoint", "SERVER/v1", "--endpoint-model", "m"), REPLIES),
    ],
    ids=["judge", "endpoint"],
)


@CHATS
def test_an_evaluation_that_waits_for_something_else(start, settings, options, line):
    process = start("eval", *options, settings=settings, tried=True)
    process.interrupt(signal.SIGINT, line)
    assert process.exit_code() == 130
    said = "rsearch: stopped by Ctrl-C at once; the same command continues in out"
    assert process.lines[-1] == said


@CHATS
def test_an_evaluation_whose_server_does_not_answer_at_all(
    start, tmp_path, settings, options, line
):
    process = start("eval", *options, settings=settings)
    process.interrupt(signal.SIGINT, line)
    assert process.exit_code() == 130
    assert process.lines[-1] == "rsearch: stopped by Ctrl-C at once; nothing was changed"
    assert not (tmp_path / "out" / "evaluation.json").exists()
