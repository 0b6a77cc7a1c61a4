"""Does rsearch work on this machine's graphics card? Imports, quickstart, tests, and a 7B in 24 GB.

Each step is a process of its own with a time limit. Its figures go to `STEP.json` before the next
step begins, its output to `STEP.out` and `STEP.log`; a step that fails does not stop the others.
Neither network nor keys are needed. On a card it takes about 20 minutes and 20 GB of disk; without
CUDA the same steps run with a tiny model on the CPU. The last line on stdout is one JSON object.

Usage:  python benchmarks/gpu_check.py [--only STEP ...] [--out DIR] [--model DIR] [--steps 2]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_fit import OURS, OVERNIGHT, PLAIN

HERE = Path(__file__).parent
LONG_ROWS = "rows of 4,096 tokens"
QUICKSTART_STEPS = 10
QUERY = "name,driver_version,memory.total,memory.used,compute_cap"


@dataclass(frozen=True)
class Step:
    """One part of the check.

    Attributes:
        command: What is run, from the root of the repository.
        limit: Seconds after which it is stopped.
        read: Makes the figures out of its standard output.
    """

    command: list[str]
    limit: int
    read: Callable[[str], dict[str, Any]]


def main() -> None:
    if sys.argv[1:] == ["describe"]:
        print(json.dumps(describe()))
        return
    names = list(list_steps(Path(), Path(), 0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, help="Where figures and logs go.")
    parser.add_argument("--model", type=Path, help="Folder for the 7B; kept, and used again.")
    parser.add_argument("--steps", type=int, default=2, help="Optimiser steps of the 7B.")
    arguments = parser.parse_args()
    out = (arguments.out or Path(tempfile.mkdtemp(prefix="gpu-check-"))).absolute()
    out.mkdir(parents=True, exist_ok=True)
    model = (arguments.model or out / "model").absolute()
    steps = list_steps(out, model, arguments.steps)
    results = {name: run(name, steps[name], out) for name in arguments.only}
    print(json.dumps(results))
    sys.exit(any(result["failed"] for result in results.values()))


def list_steps(out: Path, model: Path, steps: int) -> dict[str, Step]:
    """All steps by name, those that cost the least first."""
    python = [sys.executable]
    quickstart = out / "quickstart-run"
    tests = out / "tests.xml"

    def fit(setting: str, limit: int) -> Step:
        script = [str(HERE / "gpu_fit.py"), "--only", setting, "--steps", str(steps)]
        return Step([*python, *script, "--model", str(model)], limit, last_json)

    return {
        "environment": Step([*python, __file__, "describe"], 180, last_json),
        "quickstart": Step(
            [
                *python, "-m", "rsearch_cli", "train", "--recipe", "quickstart", "--json",
                "--max-steps", str(QUICKSTART_STEPS),
                "--output-dir", str(quickstart), "--overwrite",
            ],
            420,
            lambda _: read_run(quickstart),
        ),
        "tests": Step(
            [
                *python, "-m", "pytest", "tests/gpu", "--backend", "unsloth",
                "-p", "no:cacheprovider", f"--junitxml={tests}",
            ],
            900,
            lambda _: read_tests(tests),
        ),
        "unsloth": fit(OURS, 600),
        "plain": fit(PLAIN, 600),
        "overnight": fit(OVERNIGHT, 600),
        "long-rows": fit(LONG_ROWS, 600),
    }  # fmt: skip


def run(name: str, step: Step, out: Path) -> dict[str, Any]:
    """Run a step, and write its figures before anything else happens."""
    print(f"{name}: at most {step.limit} s", file=sys.stderr, flush=True)
    started = time.monotonic()
    failed = run_command(step, out / f"{name}.out", out / f"{name}.log")
    result = {"failed": failed, "wall_seconds": round(time.monotonic() - started, 1)}
    try:
        result |= step.read((out / f"{name}.out").read_text(errors="replace"))
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        result["failed"] = failed or f"no figures: {error!r}"
    (out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    outcome = result["failed"] or "done"
    print(f"{name}: {outcome}, {result['wall_seconds']} s", file=sys.stderr, flush=True)
    return result


def run_command(step: Step, output: Path, log: Path) -> str | None:
    """Run a step's command with all that it starts; what is wrong with how it ended, or None."""
    with output.open("w") as stdout, log.open("w") as stderr:
        process = subprocess.Popen(
            step.command,
            cwd=HERE.parent,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"},
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait(step.limit)
        except subprocess.TimeoutExpired:
            return f"not done after {step.limit} s"
        finally:
            if process.poll() is None:  # its children hold the card's memory as well
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return f"exit code {code}" if code else None


def describe() -> dict[str, Any]:
    """Versions, driver and card, and whether Unsloth is importable on it."""
    from rsearch_cli.compat.unsloth import start_unsloth

    started = time.monotonic()
    reason = start_unsloth()  # imports Unsloth, which wants to be the first
    seconds = round(time.monotonic() - started, 1)
    import torch

    from rsearch_cli.training.environment import describe_environment

    return {
        **describe_environment(
            42, "transformers" if reason else "unsloth", reason or "it starts", "auto"
        ),
        "unsloth_import_seconds": seconds,
        "unsloth_has_xformers": has_xformers(),
        "cuda": torch.version.cuda,
        "nvidia_smi": ask_driver(),
    }


def has_xformers() -> bool | None:
    """Whether Unsloth's attention is xformers', and not torch's; None without its CUDA path."""
    dispatch = sys.modules.get("unsloth.utils.attention_dispatch")
    return dispatch and bool(dispatch.HAS_XFORMERS)


def ask_driver() -> str | None:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def last_json(printed: str) -> dict[str, Any]:
    """The object on the last line."""
    return json.loads(printed.splitlines()[-1])


def read_run(folder: Path) -> dict[str, Any]:
    """What a training run came to, and its steps one by one."""
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"summary": summary, "steps": rows}


def read_tests(report: Path) -> dict[str, Any]:
    """Counts of a JUnit report, and for every test that did not pass its message."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    odd = {
        case.attrib["name"]: f"{outcome.tag}: {outcome.attrib.get('message', '')}"[:600]
        for case in suite.iter("testcase")
        for outcome in case
        if outcome.tag in ("failure", "error", "skipped")
    }
    return {**counts, "not_passed": odd}


if __name__ == "__main__":
    main()
