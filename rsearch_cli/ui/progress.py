"""Progress on stderr: a bar on a terminal, elsewhere a few plain lines for a log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rsearch_cli.distributed import is_main
from rsearch_cli.services.runtime import LOCAL
from rsearch_cli.services.spend import Spend
from rsearch_cli.streams import open_console
from rsearch_cli.terminal import on_one_line

if TYPE_CHECKING:
    from rich.console import Console

_LOG_SECONDS = 2.0  # minimum time between two lines of a log


@contextmanager
def phase(
    name: str,
    total: int,
    spend: Callable[[], Spend] = Spend,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Show the progress of an evaluation in answers, greedy and sampled ones together.

    Args:
        name: What is in progress, such as `evaluating before training`.
        total: Number of answers expected.
        spend: Returns what the run has spent so far.
        console: Where to show it; stderr by default.
        clock: Returns the time in seconds.

    Yields:
        A function to call with the number of answers completed since its last call.
    """
    console = console or stderr_console()
    if console.is_interactive:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        plain = TextColumn("{task.description}", markup=False)
        unit = TextColumn("answers  {task.fields[spent]}", markup=False)
        with Progress(plain, BarColumn(), MofNCompleteColumn(), unit, console=console) as progress:
            task = progress.add_task(name, total=total, spent="")
            yield lambda count: progress.update(task, advance=count, spent=describe_spend(spend()))
        return
    log, done = ProgressLog(console, clock), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        log.write("  ".join([f"{name}: {done}/{total} answers", describe_spend(spend())]).rstrip())

    advance(0)
    try:
        yield advance
    finally:
        log.flush()


def describe_spend(spend: Spend) -> str:
    """Return what a run has paid and saved as text, "" for a run that calls no service."""
    total = Spend({n: s for n, s in spend.services.items() if n != LOCAL}).total
    if not (total.calls or total.usd or total.saved_usd):
        return ""
    failed = f", {total.failed} failed" if total.failed else ""
    return (
        f"spent ${total.usd:.4f}, saved ${total.saved_usd:.4f}, "
        f"{total.calls} calls, {total.hits} hits{failed}"
    )


class ProgressLog:
    """Plain lines, at most one every two seconds; the latest one waits and is never lost."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._written = float("-inf")
        self._waiting: str | None = None

    def write(self, line: str, now: bool = False) -> None:
        """Print `line` if it is time (or `now`); otherwise it replaces the line that waits."""
        self._waiting = on_one_line(line)
        if now or self._clock() - self._written >= _LOG_SECONDS:
            self._written = self._clock()
            self.flush()

    def flush(self) -> None:
        """Print the line that waits, if there is one."""
        if self._waiting is not None:
            self._console.print(self._waiting, soft_wrap=True)
            self._waiting = None


def stderr_console() -> Console:
    """Return a console on stderr, silent in all processes but the main one."""
    return open_console(stderr=True) if is_main() else open_console(file=io.StringIO(), quiet=True)
