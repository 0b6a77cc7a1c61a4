"""What `rsearch --help` costs, against a Typer app with one command.

Run it as `python benchmarks/startup.py` where rsearch is installed. The two take turns, so that
whatever else the machine does falls on both. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE_APP = '''
import typer

app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    """Say hello."""
    print(f"Hello {name}")


app()
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each (default 15)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        bare_app = Path(folder) / "bare.py"
        bare_app.write_text(BARE_APP, encoding="utf-8")
        bare = [sys.executable, str(bare_app), "--help"]
        rsearch = [sys.executable, "-m", "rsearch_cli", "--help"]
        # The first run of each compiles and fills the file cache; it does not count.
        time_run(bare)
        time_run(rsearch)
        pairs = [(time_run(bare), time_run(rsearch)) for _ in range(runs)]
    report([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def time_run(command: list[str]) -> float:
    """Seconds of wall time from the start of a process to its end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def report(bare: list[float], rsearch: list[float]) -> None:
    print(f"{'':<16}{'median':>10}{'fastest':>10}{'slowest':>10}   (seconds, {len(bare)} runs)")
    for name, seconds in (("bare Typer app", bare), ("rsearch --help", rsearch)):
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        print(f"{name:<16}" + "".join(f"{figure:>10.3f}" for figure in figures))
    medians = {"bare": statistics.median(bare), "rsearch": statistics.median(rsearch)}
    result = {
        "ratio": round(medians["rsearch"] / medians["bare"], 3),
        "bare_seconds": round(medians["bare"], 4),
        "rsearch_seconds": round(medians["rsearch"], 4),
        "runs": len(bare),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
