"""How long someone waits for the first word of `rsearch infer`, and for what.

Run it as `python benchmarks/first_token.py` where rsearch is installed; a run takes some ten
seconds. A single question is asked of the built-in model, and the time is taken whenever a line or
the first word appears. The last line on stdout is one JSON object, with medians in seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time

QUESTION = "Who founded Vosbe Press?"
STAGES = ("start", "libraries and sources", "weights", "first token", "rest of the answer")
MARKS = ("opening the search sources", "loading ", "back end: ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each back end")
    parser.add_argument("--backends", nargs="+", default=["transformers", "unsloth"])
    options = parser.parse_args()
    result = {}
    for backend in options.backends:
        time_stages(backend)  # fills the file cache
        runs = [time_stages(backend) for _ in range(options.runs)]
        medians = [statistics.median(run[i] for run in runs) for i in range(len(STAGES))]
        print(f"{backend} ({options.runs} runs, seconds)")
        for i, (stage, median) in enumerate(zip(STAGES, medians, strict=True)):
            slowest = max(run[i] for run in runs)
            print(f"  {stage:<24}{median:>8.3f}   slowest {slowest:.3f}")
        result[backend] = dict(zip(STAGES, (round(m, 3) for m in medians), strict=True))
    print(json.dumps({"question": QUESTION, "runs": options.runs, **result}))


def time_stages(backend: str) -> list[float]:
    """The seconds of each stage of one run."""
    command = [sys.executable, "-m", "rsearch_cli", "infer", QUESTION]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--set", f"policy.backend={backend}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    number = process.stdout.fileno()
    words: list[float] = []

    def read() -> None:
        while os.read(number, 65536):
            words.append(time.perf_counter())

    reader = threading.Thread(target=read)
    reader.start()
    seen, other = [], []
    for line in process.stderr:
        text = line.decode()
        if len(seen) < len(MARKS) and text.startswith(MARKS[len(seen)]):
            seen.append(time.perf_counter())
        else:
            other.append(text)
    reader.join()
    if process.wait() or len(seen) < len(MARKS) or not words:
        raise SystemExit(f"{backend}: rsearch infer failed:\n{''.join(other)}")
    if other:
        print(f"{backend}: unexpected on stderr: {other[0].strip()}", file=sys.stderr)
    times = [start, *seen, words[0], words[-1]]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


if __name__ == "__main__":
    main()
