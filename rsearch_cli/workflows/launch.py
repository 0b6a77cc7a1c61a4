"""Several processes for one training run, started by torch's elastic launcher or by Accelerate."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rsearch_cli.errors import RecipeNotFound

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 3600
"""Time for the processes to finish and save a step after SIGTERM or SIGHUP."""


def launch(arguments: Sequence[str], processes: int, config: Path | None) -> int:
    """Run `rsearch` in several processes and return their exit code.

    Args:
        arguments: The command line of each process, without the program's name.
        processes: Number of processes.
        config: A file of `accelerate config` for FSDP, DeepSpeed or several machines; None trains
            with DDP on this machine.

    Raises:
        RecipeNotFound: The file does not exist.
        RecipeError: It is not a YAML mapping, or too large for a configuration.
    """
    if config is None:
        return run_workers(["-m", "rsearch_cli", *arguments], processes)
    if not config.is_file():
        raise RecipeNotFound(
            f"--accelerate-config: {config} does not exist; write it with `accelerate config "
            f"--config_file {config}`"
        )
    from rsearch_cli.recipe.documents import read_document

    read_document(config, f"--accelerate-config {config}")
    program = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    program += ["--num_processes", str(processes), "--module", "rsearch_cli", *arguments]
    if os.name == "nt":
        return subprocess.run(program, check=False).returncode
    sys.stdout.flush()
    # Accelerate takes the place of this process, and with it the signals and the exit code.
    os.execv(sys.executable, program)


def run_workers(arguments: Sequence[str], processes: int) -> int:
    """Run Python with `arguments` in several processes; if one fails, the others are ended.

    Returns:
        0, or the exit code of the process that failed; 128 + N if signal N ended it.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    from rsearch_cli.compat.torch import launch_config

    # It logs every signal and exit code as a warning or an error.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Otherwise every process uses all cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with tempfile.TemporaryDirectory() as logs, _signals_handled() as signals:
        config = launch_config(
            SHUTDOWN_SECONDS,
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="rsearch",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            signals_to_handle=signals,
        )
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except ChildFailedError as error:
            return _exit_code([failure.exitcode for failure in error.failures.values()])
        except SignalException as received:
            return 128 + received.sigval
    return 0


def without_launch_flags(arguments: Sequence[str]) -> list[str]:
    """Return a command line without `--num-processes` and `--accelerate-config`."""
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


def _exit_code(codes: Sequence[int]) -> int:
    """Return the exit code that tells most, as shells report it."""
    # A process that lost its partner ends with 1 or by a signal.
    code = max(codes, key=lambda code: (code > 1, code))
    if code > 0:
        return code
    code = min(codes, key=lambda code: (code == -signal.SIGTERM, code))
    logger.error(
        f"one of the processes was ended by signal {-code}; the last checkpoint is complete, and "
        "--resume continues from there"
    )
    return 128 - code


@contextmanager
def _signals_handled() -> Iterator[str]:
    """Name the signals that the launcher passes on; a terminal's signals reach no other process.

    The launcher starts every process in a session of its own.
    """
    passed_on = ["SIGTERM", "SIGINT"]
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up and signal.getsignal(hang_up) != signal.SIG_IGN:
        passed_on.append("SIGHUP")
    # Until they are started; not SIG_IGN, which the processes would inherit.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield ",".join(passed_on)
    finally:
        signal.signal(signal.SIGINT, before)
