"""What 16 requests in flight make of a slow server, and whether they change an answer.

Run it as `python benchmarks/endpoint_eval.py` in a checkout where rsearch is installed; it takes
about a minute. `rsearch eval` asks a local server that speaks OpenAI's chat API and answers after
200 ms: first one request at a time, then three times 16 at once, of which the best counts, because
a machine that is busy otherwise stretches the computing between replies. Both sides use the real
openai client, the same 64 questions and the same search layer, after one evaluation that does not
count. All answers must be the same. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "servers"))

from openai_policy import SETTINGS, write_files

from rsearch_cli.workflows import evaluate as workflow

SERVER = Path(__file__).resolve().parents[1] / "tests" / "servers" / "openai_policy.py"
LATENCY = 0.2
AT_ONCE = 16
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=64)
    count = parser.parse_args().questions
    with tempfile.TemporaryDirectory() as folder, running_server() as url:
        os.environ["RSEARCH_CACHE_DIR"] = f"{folder}/cache"
        base = Path(folder)
        questions, corpus = write_files(base, count)
        evaluate(base / "warm-up", url, questions, corpus, AT_ONCE)
        sent = count_requests(url)
        one, slow = evaluate(base / "one", url, questions, corpus, 1)
        requests = count_requests(url) - sent
        print(f"one at a time   {slow:8.2f} s, {requests} requests", flush=True)
        runs = []
        for repeat in range(REPEATS):
            used = time.process_time()
            many, seconds = evaluate(base / f"many-{repeat}", url, questions, corpus, AT_ONCE)
            runs.append((seconds, time.process_time() - used, many))
            print(f"{AT_ONCE} at once      {seconds:8.2f} s", flush=True)
        assert count_requests(url) == sent + (1 + REPEATS) * requests, "one sent something else"
    fast, used, _ = min(runs)
    result = {
        "speedup": round(slow / fast, 2),
        "same_answers": all(one == many for _, _, many in runs),
        "seconds_one_at_a_time": round(slow, 2),
        "seconds": round(fast, 2),
        "seconds_of_all": [round(seconds, 2) for seconds, _, _ in runs],
        "cpu_seconds": round(used, 2),
        "bound_seconds": round(requests / AT_ONCE * LATENCY, 2),
        "questions": count,
        "requests": requests,
        "at_once": AT_ONCE,
        "latency_seconds": LATENCY,
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """The server's base URL; it has a process of its own, like a real one."""
    command = [sys.executable, str(SERVER), "--latency-ms", str(LATENCY * 1000)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        facts = json.loads(process.stdout.readline())
        os.environ["OPENAI_API_KEY"] = facts["api_key"]
        yield facts["base_url"]
        process.stdin.close()


def count_requests(url: str) -> int:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/counts") as reply:
        return int(json.load(reply)["requests"])


def evaluate(
    output: Path, url: str, questions: Path, corpus: Path, at_once: int
) -> tuple[list[dict[str, Any]], float]:
    """The answers and the seconds of one evaluation."""
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        workflow.evaluate(
            "hotpot-offline",
            overrides=(
                *SETTINGS,
                f"search.sources.General.corpus={corpus}",
                f"policy.endpoint.service.concurrency={at_once}",
            ),
            endpoint=url,
            endpoint_model="agent",
            data_path=questions,
            output_dir=output,
        )
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows], seconds


if __name__ == "__main__":
    main()
