"""The live view of a run on stderr: how far it is, what it earns, what it writes.

Place in the path: fed by the trainer's callbacks and by the evaluations around the training;
nothing reads it back. On failure: it has none of its own; a row without a figure is shown without
it. Where stderr is no terminal it writes plain lines, few enough for a log.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rsearch_cli.distributed import is_main
from rsearch_cli.services.budget import Spend
from rsearch_cli.services.runtime import LOCAL
from rsearch_cli.streams import open_console
from rsearch_cli.terminal import finite, on_one_line, printable, shorten

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_LOG_SECONDS = 2.0  # least time between two progress lines of a log
_SPARK_COLUMNS = 40
_SAMPLE_CHARS = 900
_BLOCKS = "▁▂▃▄▅▆▇█"


class TrainingDisplay:
    """Progress of a training run, as a context manager around it.

    On a terminal: a bar with the time left, the reward with its parts and its course so far, where
    the seconds go, what the run has spent, and the latest sample. Elsewhere: a line a step, at most
    one every two seconds, and always the last.

    Args:
        total_steps: Optimiser steps of the whole run, those before a resume included.
        spend: Gives what the run has spent up to now.
        console: Where to show it; stderr by default.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        total_steps: int,
        spend: Callable[[], Spend] = Spend,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_steps
        self._spend = spend
        self._console = console or _stderr()
        self._clock = clock
        self._log = _Log(self._console, clock)
        self._live: Live | None = None
        self._pace = _Pace(total_steps, clock)
        self._row: Mapping[str, object] = {}
        self._rewards: list[float] = []
        self._sample = ""
        self._status = ""

    def __enter__(self) -> Self:
        """Start the live view, where there is a terminal."""
        self._pace = _Pace(self._total, self._clock)
        if self._console.is_interactive:
            from rich.live import Live

            # The training owns the cores: two frames a second are enough to look alive.
            self._live = Live(
                console=self._console, get_renderable=self._render, refresh_per_second=2
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state on the screen, or the last line in the log."""
        if self._live:
            self._live.stop()
        self._log.flush()

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Show a finished step and the transcript of its first rollout.

        Args:
            row: The step's row of `metrics.jsonl`; `step` counts finished steps, from 1.
            rollouts: Its rows of `trajectories.jsonl`; empty keeps the transcript before.
        """
        self._row = row
        self._pace.reach(finite(row, "step"))
        reward = finite(row, "reward")
        if reward is not None:
            self._rewards.append(reward)
        if rollouts:
            first = rollouts[0]
            text = first["opening"] + "".join(segment["text"] for segment in first["segments"])
            self._sample = shorten(printable(text).strip(), _SAMPLE_CHARS)
        if not self._live:
            self._log.write("  ".join(self._lines()))

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        """Show an alarm permanently: above the live view, or as a line of the log."""
        line = f"alarm after step {step}: {reason} (alarms.{name})"
        if self._live:
            self._live.console.print(line, style="red")
        else:
            self._log.flush()
            self._log.write(line, now=True)

    def on_validation(self, row: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """Show a validation and the best one so far: rows of `validation.jsonl`."""
        self.status(
            f"validation after step {finite(row, 'step'):g}: F1 {finite(row, 'f1'):.3f}, "
            f"best {finite(best, 'f1'):.3f} after step {finite(best, 'step'):g}"
        )

    def status(self, text: str) -> None:
        """Show what is going on; meant for events, as a log gets a line for each new text."""
        if text == self._status:
            return
        self._status = text
        if not self._live:
            self._log.flush()
            self._log.write(text, now=True)

    def _lines(self) -> list[str]:
        """The latest step in words, without what is unknown."""
        row = self._row
        parts = _figures(row, "reward/", ("answer", "plan", "format"), ".3f")
        seconds = [key.removeprefix("seconds/") for key in row if key.startswith("seconds/")]
        alarms = row.get("alarms")
        words = [
            f"step {self._pace.step:g}/{self._total}",
            _describe_gain(row),
            f"({parts})" if parts else "",
            f"ALARM {', '.join(alarms)}" if isinstance(alarms, list) and alarms else "",
            _figures(row, "seconds/", seconds, ".1f", " s"),
            describe_spend(self._spend()),
            self._pace.left(),
        ]
        return [word for word in words if word]

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 2))
        progress, *rest = self._lines() if self._row else [f"step 0/{self._total}"]
        bar.add_row(
            Text(progress, style="bold"),
            ProgressBar(total=self._total, completed=self._pace.step, width=_SPARK_COLUMNS),
            Text(f"{_duration(self._pace.elapsed())} elapsed", style="dim"),
        )
        shown: list[RenderableType] = [bar]
        if rest:
            shown.append(Text("  ".join(rest)))
        if self._rewards:
            shown.append(Text(sparkline(self._rewards, _SPARK_COLUMNS), style="cyan"))
        if self._status:
            shown.append(Text(self._status, style="dim"))
        if self._sample:
            shown.append(Panel(Text(self._sample), title="a sample", title_align="left"))
        return Group(*shown)


@contextmanager
def phase(
    name: str,
    total: int,
    spend: Callable[[], Spend] = Spend,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Show how far an evaluation is, in answers: greedy and sampled ones both count.

    Args:
        name: What is under way, such as `evaluating before training`.
        total: Number of answers to come.
        spend: Gives what the run has spent up to now.
        console: Where to show it; stderr by default.
        clock: Gives the time in seconds.

    Yields:
        A function to call with the number of answers that came since its last call.
    """
    console = console or _stderr()
    if console.is_interactive:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        plain = TextColumn("{task.description}", markup=False)
        unit = TextColumn("answers  {task.fields[spent]}", markup=False)
        with Progress(plain, BarColumn(), MofNCompleteColumn(), unit, console=console) as progress:
            task = progress.add_task(name, total=total, spent="")
            yield lambda count: progress.update(task, advance=count, spent=describe_spend(spend()))
        return
    log, done = _Log(console, clock), 0

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
    """What a run has paid and saved, in words; "" for a run that sends nothing."""
    total = Spend({n: s for n, s in spend.services.items() if n != LOCAL}).total
    if not (total.calls or total.usd or total.saved_usd):
        return ""
    failed = f", {total.failed} failed" if total.failed else ""
    return (
        f"spent ${total.usd:.4f}, saved ${total.saved_usd:.4f}, "
        f"{total.calls} calls, {total.hits} hits{failed}"
    )


def sparkline(values: Sequence[float], columns: int) -> str:
    """`values` as at most `columns` blocks from their least to their greatest, between the two.

    With more values than columns, a block stands for the mean of its share of them.
    """
    columns = min(columns, len(values))
    edges = [i * len(values) // columns for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    blocks = "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
    return f"{low:.3f} {blocks} {high:.3f}"


class _Pace:
    """How fast steps finish, and so when the last one will."""

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self.step = 0.0
        self._total = total
        self._clock = clock
        self._started = clock()
        self._first: tuple[float, float] | None = None  # step and the time of its end
        self._last = self._started

    def reach(self, step: float | None) -> None:
        """Note that `step` has just finished; None stands for the next one."""
        self.step = self.step + 1 if step is None else step
        self._last = self._clock()
        self._first = self._first or (self.step, self._last)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def left(self) -> str:
        """The time left in words; "" before the first step has finished."""
        if self._first is None:
            return ""
        step, ended = self._first
        # The first step alone also carries the warm-up, so it counts only until there is a second.
        if self.step > step:
            seconds = (self._last - ended) / (self.step - step)
        else:
            seconds = self._last - self._started
        due = self._last + seconds * (self._total - self.step)
        return f"{_duration(max(0.0, due - self._clock()))} left"


class _Log:
    """Plain lines, at most one every two seconds; the newest one waits and is never lost."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._written = float("-inf")
        self._waiting: str | None = None

    def write(self, line: str, now: bool = False) -> None:
        """Print `line` if it is time (or `now`), else keep it in place of the one that waited."""
        self._waiting = on_one_line(line)
        if now or self._clock() - self._written >= _LOG_SECONDS:
            self._written = self._clock()
            self.flush()

    def flush(self) -> None:
        """Print the line that waits, if there is one."""
        if self._waiting is not None:
            self._console.print(self._waiting, soft_wrap=True)
            self._waiting = None


def _stderr() -> Console:
    return open_console(stderr=True) if is_main() else open_console(file=io.StringIO(), quiet=True)


def _describe_gain(row: Mapping[str, object]) -> str:
    """The reward of a step, or its loss where it is learnt without one."""
    name = "reward" if "reward" in row else "loss"
    value = finite(row, name)
    return f"{name} unscored" if value is None else f"{name} {value:.3f}"


def _figures(
    row: Mapping[str, object], prefix: str, names: Sequence[str], form: str, unit: str = ""
) -> str:
    values = [(name, finite(row, prefix + name)) for name in names]
    return ", ".join(f"{name} {value:{form}}{unit}" for name, value in values if value is not None)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
