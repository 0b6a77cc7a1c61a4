"""Whether `rsearch eval`, killed at random moments, ends with the results of an unbroken one.

Run it as `python benchmarks/eval_kills.py` in a checkout where rsearch is installed. A process
evaluates the nano model (with `--endpoint`: a scripted agent behind a local server) by all three
methods; ten times over it is killed with SIGKILL, a random moment after it has stored a random
number of answers, and started again, then left to end. Predictions and results must be those of the
unbroken evaluation, but for latencies and for what was paid. The last line on stdout is one JSON
object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files

ROOT = Path(__file__).resolve().parents[1]

LOCAL = (
    "--set", "questions.world.train_regions=2",
    "--set", "questions.world.held_out_regions=1",
    "--set", "policy.backend=transformers",
    "--set", "rollout.max_new_tokens=60",
    "--limit", "12",
    "--batch-size", "2",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--endpoint", action="store_true", help="a scripted agent on a server")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ |= {"OPENAI_API_KEY": API_KEY, "RSEARCH_CACHE_DIR": f"{base}/cache"}
        options = list(LOCAL)
        if args.endpoint:
            server = stack.enter_context(ChatServer(write_as_agent, latency=0.05))
            options = endpoint_options(base, server)
        started = time.monotonic()
        evaluate(base / "whole", options)
        seconds = time.monotonic() - started
        print(f"unbroken: {seconds:.1f} s", flush=True)
        stored = []
        targets = sorted(rng.sample(range(count_rows(base / "whole")), args.kills))
        for number, target in enumerate(targets):
            kill_after(base / "broken", options, target, rng.uniform(0.0, 0.5))
            stored.append(count_rows(base / "broken"))
            print(f"kill {number + 1}: {stored[-1]} answers are stored", flush=True)
        evaluate(base / "broken", options)
        result = {
            "same_predictions": predictions(base / "broken") == predictions(base / "whole"),
            "same_results": results(base / "broken") == results(base / "whole"),
            "kills": args.kills,
            "stored_after_each_kill": stored,
            "answers": count_rows(base / "whole"),
            "policy": "endpoint" if args.endpoint else "nano",
            "seconds_unbroken": round(seconds, 1),
        }
    print(json.dumps(result))


def endpoint_options(base: Path, server: ChatServer) -> list[str]:
    questions, corpus = write_files(base, 60)
    settings = (*SETTINGS, f"search.sources.General.corpus={corpus}")
    options = [word for setting in settings for word in ("--set", setting)]
    options += ["--recipe", "hotpot-offline", "--data-path", str(questions), "--batch-size", "3"]
    return [*options, "--endpoint", server.base_url, "--endpoint-model", "agent"]


def command(output: Path, options: list[str]) -> list[str]:
    program = [sys.executable, "-m", "rsearch_cli", "eval", "--method", "rsearch,rag,direct"]
    return [*program, *options, "--output-dir", str(output)]


def evaluate(output: Path, options: list[str]) -> None:
    """One evaluation to its end."""
    subprocess.run(command(output, options), check=True, capture_output=True, cwd=ROOT)


def kill_after(output: Path, options: list[str], answers: int, seconds: float) -> None:
    """Start an evaluation and kill it some seconds after so many answers are stored."""
    process = subprocess.Popen(
        command(output, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    while count_rows(output) < answers and process.poll() is None:
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def count_rows(folder: Path) -> int:
    path = folder / "predictions.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def predictions(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del found["spend"]
    for block in found["methods"].values():
        del block["latency_seconds"], block["seconds_per_question"]
    return found


if __name__ == "__main__":
    main()
