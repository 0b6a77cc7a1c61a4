"""Several processes for one training: started here, one a GPU, each the same command.

Place in the path: between `rsearch train --num-processes N` and the N processes that run it without
that flag; they find each other by the environment variables that Accelerate reads. On failure: when
one process fails the others are ended, and its exit code is ours; what it had to say it has said.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rsearch_cli.errors import RecipeNotFound

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
"""How often the processes are looked after."""

GRACE_SECONDS = 20.0
"""How long a process may take to end after it was told to."""


def launch(arguments: Sequence[str], processes: int, config: Path | None) -> int:
    """Run `rsearch` in several processes, and give the exit code of them all.

    Args:
        arguments: The command line of each, without the program's name.
        processes: How many.
        config: A file of `accelerate config` for FSDP, DeepSpeed or several machines; None trains
            by DDP on this machine.

    Raises:
        RecipeNotFound: There is no such file.
        RecipeError: It is not a YAML mapping, or larger than any configuration.
    """
    if config is None:
        return _watch(_start(arguments, processes))
    if not config.is_file():
        raise RecipeNotFound(
            f"--accelerate-config: {config} is no file; write one with `accelerate config "
            f"--config_file {config}`"
        )
    from rsearch_cli.recipe.documents import read_document

    read_document(config, f"--accelerate-config {config}")
    program = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    program += ["--num_processes", str(processes), "--module", "rsearch_cli", *arguments]
    return _watch([subprocess.Popen(program)])


def without_launch_flags(arguments: Sequence[str]) -> list[str]:
    """A command line without the flags that are read here."""
    rest: list[str] = []
    skip = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif flag in ("--num-processes", "--accelerate-config"):
            skip = not equals
        else:
            rest.append(argument)
    return rest


def _start(arguments: Sequence[str], processes: int) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    # Else every process would take all cores for itself.
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "rsearch_cli", *arguments],
            env={**threads, **os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]


def _watch(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all; after the first failure end the others. Signals are handed on."""
    with _hand_on_signals(started):
        while True:
            codes = [process.poll() for process in started]
            failed = [code for code in codes if code]
            if failed:
                _end(started)
                # A process that lost its partner dies of a signal or with a bug's code.
                return _as_exit_code(max(failed, key=lambda code: (code > 1, code)))
            if all(code == 0 for code in codes):
                return 0
            time.sleep(POLL_SECONDS)


def _as_exit_code(code: int) -> int:
    """The exit code of a process, and for one that a signal ended the code that shells give."""
    if code > 0:
        return code
    logger.error(
        f"one of the processes was ended by signal {-code}; the last checkpoint is whole, "
        "and --resume continues from there"
    )
    return 128 - code


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what is still running: gently, then by force."""
    until = time.monotonic() + GRACE_SECONDS
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _hand_on_signals(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Give SIGTERM and SIGHUP to all processes; Ctrl-C they get from the terminal themselves."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    old = {signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on)}
    old[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up and signal.getsignal(hang_up) != signal.SIG_IGN:
        old[hang_up] = signal.signal(hang_up, hand_on)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
