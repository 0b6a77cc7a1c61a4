"""Draw the pictures of the README from real output: a quickstart's report, and a session with it.

Trains the quickstart unless the run folder exists (three minutes on two cores), then runs
`rsearch infer` in a pseudo-terminal and types a question. POSIX only.

Usage:  python docs/pictures/make.py [--run runs/quickstart]
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests/servers"))
from pty_terminal import CONTROL_D, ENTER, Terminal  # noqa: E402

COLUMNS = 90
QUESTION = "Where was the author of The Gorpus Lantern born?"
RSEARCH = (sys.executable, "-m", "rsearch_cli")
# Escape sequences other than colours, and whatever a prompt drew before its last state.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
_REDRAWN = re.compile(r".*\x1b\[J")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    run = parser.parse_args().run
    draw("quickstart", f"rsearch train --recipe quickstart --output-dir {run}", report(run))
    draw("session", f"rsearch infer --model {run}", session(run))


def report(run: Path) -> str:
    """The report of `rsearch train`, up to the first question before and after training."""
    again = ["--resume"] if (run / "summary.json").exists() else []
    printed = subprocess.run(
        [*RSEARCH, "train", "--recipe", "quickstart", "--output-dir", str(run), *again],
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    panels = [match.start() for match in re.finditer(r"\S*╭─", printed)]
    return printed[: panels[2]] if len(panels) > 2 else printed


def session(run: Path) -> str:
    """What a terminal shows of one question in a session, without the lines of loading."""
    command = [*RSEARCH, "infer", "--model", str(run)]
    with Terminal(command, {**os.environ, "COLUMNS": str(COLUMNS)}) as terminal:
        terminal.wait_for("\n>")
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("tokens,")
        terminal.wait_for("\n>")
        terminal.type(CONTROL_D)
        terminal.wait_until_left()
        raw = terminal.raw
    lines = (_CONTROL.sub("", _REDRAWN.sub("", line)) for line in re.split(r"\r+\n", raw))
    kept = [line for line in lines if line.strip()]
    first = next(i for i, line in enumerate(kept) if str(run) in line)
    return "\n".join(line for line in kept[first:] if not line.startswith("\x1b[0;38"))


def draw(name: str, command: str, printed: str) -> None:
    """Write terminal output as an SVG of a window with the command as its title."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(printed.strip("\n")))
    path = HERE / f"{name}.svg"
    console.save_svg(str(path), title=command, theme=MONOKAI, unique_id=f"rsearch-{name}")
    print(path)


if __name__ == "__main__":
    main()
