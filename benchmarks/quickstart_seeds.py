"""Does the quickstart learn, and does it learn from the answers?

Runs it from several seeds and, as the control, with the answer scores of every step dealt out at
random. Prints a table and, as the last line on stdout, one JSON object. About three minutes a run
on two cores.

Usage:  python benchmarks/quickstart_seeds.py [--seeds 42 1 2] [--control-seeds 42] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

METRICS = ("em", "em_sampled", "f1", "plan_valid", "format_valid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--control-seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--out", type=Path, help="Keep the run folders here.")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp(prefix="quickstart-"))
    runs = [run(out, seed, control=False) for seed in arguments.seeds]
    runs += [run(out, seed, control=True) for seed in arguments.control_seeds]
    for result in runs:
        print(result["name"], f"({result['seconds']:.0f} s)")
        for metric in METRICS:
            low, high = result["intervals"][metric]
            print(
                f"  {metric:13} {result['before'][metric]:.3f} -> {result['after'][metric]:.3f}"
                f"   {result['difference'][metric]:+.3f} [{low:+.3f}, {high:+.3f}]"
            )
    print(json.dumps({"runs": runs}))


def run(out: Path, seed: int, *, control: bool) -> dict:
    """Train once through the real command line and take what its summary says."""
    name = f"control-{seed}" if control else f"seed-{seed}"
    command = [sys.executable, "-m", "rsearch_cli", "train", "--recipe", "quickstart", "--json"]
    command += ["--seed", str(seed), "--output-dir", str(out / name)]
    command += ["--set", "reward.shuffle_answers=true"] if control else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    summary = json.loads(done.stdout)
    return {
        "name": name,
        "n": summary["after"]["n"],
        "seconds": summary["seconds"],
        **{
            side: {m: round(summary[side][m], 4) for m in METRICS}
            for side in ("before", "after", "difference")
        },
        "intervals": {
            m: [round(x, 4) for x in summary["difference"]["intervals"][m]] for m in METRICS
        },
    }


if __name__ == "__main__":
    main()
