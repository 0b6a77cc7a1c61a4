"""The live view of a training run: progress, reward, time, spend and the latest transcript."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rsearch_cli.services.spend import Spend
from rsearch_cli.terminal import finite, printable, shorten
from rsearch_cli.ui.progress import ProgressLog, describe_spend, stderr_console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SPARK_COLUMNS = 40
_SAMPLE_CHARS = 900
_BLOCKS = "▁▂▃▄▅▆▇█"


class TrainingDisplay:
    """Progress of a training run on stderr, as a context manager; an `Observer` of the run.

    A terminal gets a live view. A log gets one line per step, at most one every two seconds, and
    always the last.

    Args:
        total_steps: Optimiser steps of the whole run, those before a resume included.
        spend: Returns what the run has spent so far.
        console: Where to show it; stderr by default.
        clock: Returns the time in seconds.
        afterwards: Seconds that the run will take after the last step.
    """

    def __init__(
        self,
        total_steps: int,
        spend: Callable[[], Spend] = Spend,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        afterwards: float = 0.0,
    ) -> None:
        self._spend = spend
        console = console or stderr_console()
        self._live = console.is_interactive
        self._log = ProgressLog(console, clock)
        self._row: Mapping[str, Any] = {}
        self._rewards: list[float] = []
        self._sample = ""
        self._status = ""
        self._clock, self._afterwards = clock, afterwards
        self._ends: list[float] = []
        self._progress = _make_progress(console, clock, self._render, self._time_left)
        self._progress.add_task("", total=total_steps)
        (self._task,) = self._progress.tasks

    def __enter__(self) -> Self:
        """Start the clock and, on a terminal, the live view."""
        self._progress.reset(self._task.id)
        self._ends = [self._clock()]
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last state on the screen, or the last line in the log."""
        if self._live:
            self._progress.stop()
        self._log.flush()

    def on_step(self, row: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Show a finished step and the transcript of its first rollout.

        Args:
            row: The step's row of `metrics.jsonl`; `step` counts finished steps, from 1.
            rollouts: Its rows of `trajectories.jsonl`; empty keeps the transcript before.
        """
        self._row = row
        self._ends.append(self._clock())
        step = finite(row, "step")
        self._progress.update(self._task.id, completed=step or self._task.completed + 1)
        reward = finite(row, "reward")
        if reward is not None:
            self._rewards.append(reward)
        if rollouts:
            first = rollouts[0]
            text = first["opening"] + "".join(segment["text"] for segment in first["segments"])
            self._sample = shorten(printable(text).strip(), _SAMPLE_CHARS)
        if not self._live:
            step_of_total = f"step {self._task.completed:g}/{self._task.total:g}"
            self._log.write(
                "  ".join(filter(None, [step_of_total, *self._figures(), self._time_left()]))
            )

    def on_alarm(self, step: int, name: str, reason: str) -> None:
        """Show an alarm permanently: above the live view, or as a line of the log."""
        line = f"alarm after step {step}: {reason} (alarms.{name})"
        if self._live:
            self._progress.console.print(line, style="red")
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
        """Show what is happening; a log gets a line for each new text."""
        if text == self._status:
            return
        self._status = text
        if not self._live:
            self._log.flush()
            self._log.write(text, now=True)

    def _time_left(self) -> str:
        """Return the rest of the run by its measured steps as text; "" before the first step.

        The first step compiles and warms up. Alone it gives an upper bound; later it is left out.
        """
        first = len(self._ends) == 2
        ends = self._ends if first else self._ends[1:]
        if len(ends) < 2 or self._task.total is None:
            return ""
        step = (ends[-1] - ends[0]) / (len(ends) - 1)
        left = step * (self._task.total - self._task.completed) + self._afterwards
        rest = _duration(max(0.0, left - (self._clock() - ends[-1])))
        return f"at most {rest} left" if first else f"{rest} left"

    def _figures(self) -> list[str]:
        """Return the figures of the latest step as text, without those that are unknown."""
        row = self._row
        parts = _join(row, "reward/", _names(row, "reward/"), ".3f")
        seconds = _names(row, "seconds/")
        alarms = row.get("alarms")
        figures = [
            _reward_or_loss(row) if row else "",
            f"({parts})" if parts else "",
            _discarded(row),
            f"ALARM {', '.join(alarms)}" if isinstance(alarms, list) and alarms else "",
            _join(row, "seconds/", seconds, ".1f", " s"),
            describe_spend(self._spend()),
        ]
        return [figure for figure in figures if figure]

    def _render(self) -> Iterable[RenderableType]:
        """Yield what the live view shows below the bar."""
        from rich.panel import Panel
        from rich.text import Text

        if figures := self._figures():
            yield Text("  ".join(figures))
        if self._rewards:
            yield Text(sparkline(self._rewards, _SPARK_COLUMNS), style="cyan")
        if self._status:
            yield Text(self._status, style="dim")
        if self._sample:
            yield Panel(Text(self._sample), title="a sample", title_align="left")


def _make_progress(
    console: Console,
    clock: Callable[[], float],
    below: Callable[[], Iterable[RenderableType]],
    left: Callable[[], str],
) -> Any:
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class TimeLeftColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(left(), style="progress.remaining")

    class TrainingProgress(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            yield from below()

    return TrainingProgress(
        TextColumn("step {task.completed:g}/{task.total:g}", style="bold"),
        BarColumn(_SPARK_COLUMNS),
        TimeElapsedColumn(),
        TextColumn("elapsed", style="dim"),
        TimeLeftColumn(),
        console=console,
        # The training needs the cores: two frames a second are enough.
        refresh_per_second=2,
        get_time=clock,
    )


def sparkline(values: Sequence[float], columns: int) -> str:
    """Draw `values` as blocks, from their minimum to their maximum, between these two numbers.

    Args:
        values: At least one number.
        columns: Maximum number of blocks; with more values, a block is the mean of its share.
    """
    columns = min(columns, len(values))
    edges = [i * len(values) // columns for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    blocks = "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)
    return f"{low:.3f} {blocks} {high:.3f}"


def _reward_or_loss(row: Mapping[str, object]) -> str:
    """Return the reward of a step, or its loss in a supervised run."""
    name = "reward" if "reward" in row else "loss"
    value = finite(row, name)
    return f"{name} unscored" if value is None else f"{name} {value:.3f}"


def _discarded(row: Mapping[str, object]) -> str:
    """Return how many rollouts of a step were replaced, and their cost if they had any."""
    rollouts, usd = finite(row, "discarded/rollouts"), finite(row, "discarded/usd")
    if not rollouts:
        return ""
    return f"{rollouts:g} rollouts discarded" + (f" (${usd:.4f})" if usd else "")


def _names(row: Mapping[str, object], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in row if key.startswith(prefix)]


def _join(
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
