"""Real processes whose terminal is closed, whose reader goes away, or whose memory runs out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loaded_process import LoadedProcess

STEPS = 3
TRAIN = [
    *(sys.executable, "-m", "rsearch_cli", "train", "--recipe", "quickstart"),
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", "policy.backend=transformers",
    "--set", "train.batch_size=8",
    "--set", "train.save_steps=50",
    "--set", "evaluate.limit=4",
    "--num-generations", "4",
]  # fmt: skip
HANG_GUARD = 180.0


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + HANG_GUARD
    while len(rows(folder)) < step:
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_training_whose_reader_goes_away_reaches_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    reader, writer = os.pipe()
    process = LoadedProcess(
        [*TRAIN, "--max-steps", str(STEPS), "--output-dir", str(folder)],
        stdout=writer, stderr=writer,
    )  # fmt: skip
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)  # as `| head` does once it has its lines
    assert process.wait(HANG_GUARD) == 141, "there was nobody to take the report"
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert (folder / "summary.json").exists()
    assert len(rows(folder)) == STEPS


def test_a_closed_terminal_finishes_the_step_and_saves_it(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    folder = tmp_path / "run"
    keys, inside = pty.openpty()
    process = LoadedProcess(
        [*TRAIN, "--max-steps", "500", "--output-dir", str(folder)],
        env={**os.environ, "TERM": "xterm"},
        stdin=inside, stdout=inside, stderr=inside, take_terminal=True,
    )  # fmt: skip
    os.close(inside)
    os.set_blocking(keys, False)
    until = time.monotonic() + HANG_GUARD
    while len(rows(folder)) < 2:
        assert process.poll() is None and time.monotonic() < until
        with contextlib.suppress(BlockingIOError):  # a full terminal would stop it
            os.read(keys, 65536)
        time.sleep(0.05)
    os.close(keys)  # the kernel sends SIGHUP, and every write fails from here on
    assert process.wait(HANG_GUARD) == 129
    last = len(rows(folder))
    assert (folder / f"checkpoint-{last}" / "seal.json").exists()


def test_hang_ups_that_come_twice_do_not_cut_the_step_off(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = LoadedProcess(
        [*TRAIN, "--max-steps", "500", "--output-dir", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_step(folder, 1, process)
    for _ in range(3):  # the kernel, the shell and systemd each send one
        process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    _, said = process.communicate(timeout=HANG_GUARD)
    last = folder / f"checkpoint-{len(rows(folder))}"
    line = f"rsearch: stopped by SIGHUP after a complete step; --resume continues from {last}"
    assert (process.returncode, said.splitlines()[-1]) == (129, line)


def test_under_nohup_a_hang_up_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*TRAIN, "--max-steps", str(STEPS), "--output-dir", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    wait_for_step(folder, 1, process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(HANG_GUARD) == 0


def test_several_processes_are_hung_up_together(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*TRAIN, "--max-steps", "500", "--output-dir", str(folder), "--num-processes", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    wait_for_step(folder, 1, process)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(HANG_GUARD) == 129
    assert (folder / f"checkpoint-{len(rows(folder))}" / "seal.json").exists()


SHORT_OF_MEMORY = """
import resource, sys
from rsearch_cli.{module} import {owner}
original = {owner}.{method}
calls = []

def lower(*arguments, **options):
    calls.append(1)
    if len(calls) == {call}:
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + {spare} * 2**20, -1))
    return original(*arguments, **options)

{owner}.{method} = lower
from rsearch_cli.app import main
main()
"""


def short_of_memory(
    module: str, owner: str, method: str, spare: int, *arguments: str, call: int = 1
):
    """Run `rsearch` with a limit on its memory from the given call of a method on."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is not known here")
    script = SHORT_OF_MEMORY.format(
        module=module, owner=owner, method=method, spare=spare, call=call
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "MALLOC_ARENA_MAX": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_memory_that_runs_out_in_an_update_on_a_cpu_has_its_own_code(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [
        *TRAIN[3:], "--max-steps", "3", "--output-dir", str(folder),
        "--set", "train.batch_size=64", "--set", "rollout.max_new_tokens=80",
    ]  # fmt: skip
    done = short_of_memory("training.grpo", "GrpoTraining", "score", 8, *options, call=2)
    assert done.returncode == 64, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("rsearch: memory ran out in the update (")
    assert "1 steps are finished and saved in" in line and (folder / "checkpoint-1").is_dir()


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError()",
        "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried to allocate')",
        "OSError(12, 'Cannot allocate memory')",
        "RuntimeError('std::bad_alloc')",
    ],
)
def test_memory_that_runs_out_anywhere_else_has_it_too(error: str) -> None:
    script = f"""
from rsearch_cli.recipe import loading
def fail():
    raise {error}
loading.list_recipes = fail
import sys
sys.argv = ["rsearch", "recipes"]
from rsearch_cli.app import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr.startswith("rsearch: memory ran out: ") and done.stderr.count("\n") == 1
