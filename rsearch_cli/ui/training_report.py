"""What `rsearch train` prints at its end: the figures, the course of the reward, some trajectories.

Text of models and sources is printed literally: it is never read as markup, and control characters
are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rsearch_cli.evaluation.comparison import pair_results
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.publishing.reward_plot import reward_ticks
from rsearch_cli.terminal import finite, printable, shorten
from rsearch_cli.ui.tables import as_table, training_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

# Key in the metrics rows to marker and colour of its curve; later ones are drawn over earlier ones.
_CURVES = {
    "reward/answer": ("a", "blue"),
    "reward/plan": ("p", "green"),
    "reward/format": ("f", "yellow"),
    "reward": ("•", "red"),
    "validation": ("v", "magenta"),
}
# Markers and colour of further parts, in alphabetical order; a part beyond these is not drawn.
_FURTHER = ("1", "2", "3", "4"), "cyan"
_TAG = re.compile(r"</?(?:think|search|result|r|answer)>")
# Most characters shown of one stretch of a transcript; trajectories.jsonl has the rest.
_STRETCH = 1200


def print_report(
    console: Console,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, object]],
    validations: Sequence[Mapping[str, object]],
    before: Sequence[EvalResult],
    after: Sequence[EvalResult],
    show: int,
) -> None:
    """Print the table of figures, the plot of the reward, and trajectories before and after.

    Args:
        console: Where to print.
        summary: `summary.json`.
        rows: The rows of `metrics.jsonl`; a supervised run has no reward to plot.
        validations: The rows of `validation.jsonl`.
        before: Greedy results before training.
        after: Greedy results after training, of the same questions.
        show: Number of questions whose trajectories are shown.

    Raises:
        DataError: `before` and `after` are not of the same questions.
    """
    from rich.text import Text

    console.print(as_table(training_table(summary)))
    if summary.get("stage") != "sft":
        points = [{"step": row["step"], "validation": row["f1"]} for row in validations]
        size = min(console.width, 100), 18
        plot = reward_plot([*rows, *points], *size, colour=console.is_terminal)
        console.print(Text.from_ansi(plot), soft_wrap=True)
    for line in describe_course(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for old, new in choose_trajectories(before, after, show):
        console.print(trajectory_panel(old, "before training"))
        console.print(trajectory_panel(new, "after training"))


def reward_plot(
    rows: Sequence[Mapping[str, object]], width: int, height: int, colour: bool = False
) -> str:
    """Return a text plot of the reward, its parts and the validations over the steps.

    Args:
        rows: Rows with `step`, `reward`, `reward/answer` and the other parts, and `validation`; a
            missing or null value leaves a gap.
        width: Columns of the plot.
        height: Lines of the plot.
        colour: Whether to add terminal colour codes.
    """
    import plotext

    further = _further_curves(rows)
    marks = {**further, **_CURVES}
    curves = {key: _curve(rows, key) for key in marks}
    steps = sorted({step for curve in curves.values() for step, _ in curve})
    if not steps:
        return "No step has a reward to plot."
    order = ["reward", "reward/answer", "reward/plan", "reward/format", *further, "validation"]
    legend = _legend([(marks[key][0], key) for key in order if curves[key]], width)
    # plotext has one figure for the whole process: clear what others drew, and leave nothing.
    figure = plotext.figure
    figure.clear.all()
    figure.theme("colorless").plot_size(width, height - len(legend)).legend(False)
    for key, (symbol, shade) in marks.items():
        if not curves[key]:
            continue
        marker = plotext.marker(symbol).fill(shade)
        xs, ys = zip(*curves[key], strict=True)
        figure.draw(figure.signal(list(xs), list(ys), marker=marker).lines(key == "reward"))
    figure.label("step", 0, 0)
    heights = reward_ticks(value for curve in curves.values() for _, value in curve)
    figure.ruler(1, 0).lim(heights[0], heights[-1]).ticks(heights, [f"{y:g}" for y in heights])
    ticks = sorted({steps[i * (len(steps) - 1) // 4] for i in range(5)})
    figure.ruler(0, 0).ticks(ticks, [f"{step:g}" for step in ticks])
    drawn = str(figure.build().string(colorless=not colour))
    figure.clear.all()
    return "\n".join(line.rstrip() for line in (*legend, *drawn.rstrip().splitlines()))


def describe_course(summary: Mapping[str, Any]) -> list[str]:
    """Return lines about chosen questions, best adapter, discarded rollouts and alarms."""
    lines = []
    if chosen := summary.get("chosen"):
        lines.append(
            f"Trained on {chosen['chosen']} of {chosen['of']} questions, chosen by the pass rates "
            f"of {chosen['model']} (questions.profile)"
        )
    if best := summary.get("best"):
        kept = "is kept in adapter/" if summary["kept"] == "best" else "is in best/"
        lines.append(
            f"Best validation (v, {best['n']} other questions): F1 {best['f1']:.3f} after step "
            f"{best['step']}; that adapter {kept}"
        )
    if discarded := summary.get("discarded"):
        lines.append(
            f"Discarded: {discarded['rollouts']} of {discarded['sampled']} rollouts "
            f"({discarded['share']:.0%}, ${discarded['usd']:.4f}), of groups with equal rewards; "
            "others took their place (train.resample_ties)"
        )
    if alarms := summary.get("alarms"):
        first = ", ".join(f"{name} after step {step}" for name, step in alarms.items())
        lines.append(f"Alarms: {first}; details: alarms in metrics.jsonl")
    return lines


def choose_trajectories(
    before: Sequence[EvalResult], after: Sequence[EvalResult], show: int
) -> list[tuple[EvalResult, EvalResult]]:
    """Return `show` questions, before and after: first those whose correctness changed.

    Raises:
        DataError: The two are not of the same questions.
    """
    # sorted() is stable, and False comes before True.
    return sorted(pair_results(before, after), key=lambda pair: pair[0].em == pair[1].em)[:show]


def trajectory_panel(result: EvalResult, title: str) -> Panel:
    """Return a panel with question, transcript, answer, reference and verdict.

    Tags are dimmed. Text that the system inserted is cyan, so a result that the model made up is
    not.
    """
    from rich.panel import Panel
    from rich.text import Text

    correct = result.em == 1.0
    colour = "green" if correct else "red"
    answer = "none" if result.answer is None else printable(result.answer)
    verdict = "correct" if correct else f"wrong (F1 {result.f1 or 0.0:.2f})"
    if result.em is None:
        verdict, colour = "not scored", "dim"
    body = Text.assemble(
        ("Question   ", "bold"),
        printable(result.text),
        "\n\n",
        _transcript(result),
        "\n\n",
        ("Answer     ", "bold"),
        shorten(answer, _STRETCH),
        "  ",
        (verdict, colour),
        ("\nReference  ", "bold"),
        printable(" | ".join(result.references) or "none"),
    )
    return Panel(body, title=Text(title), title_align="left", border_style=colour)


def _further_curves(rows: Sequence[Mapping[str, object]]) -> dict[str, tuple[str, str]]:
    """Map the keys of further parts of the reward to marker and colour of their curves."""
    keys = {key for row in rows for key in row if key.startswith("reward/")} - _CURVES.keys()
    symbols, shade = _FURTHER
    return {key: (symbol, shade) for key, symbol in zip(sorted(keys), symbols, strict=False)}


def _legend(curves: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return the lines of the legend: markers and names, none of them broken, in the middle."""
    lines: list[str] = []
    for symbol, key in curves:
        name = "validation F1" if key == "validation" else printable(key.removeprefix("reward/"))
        entry = f"{symbol} {name}"
        if lines and len(lines[-1]) + 3 + len(entry) <= width:
            lines[-1] += f"   {entry}"
        else:
            lines.append(entry)
    return [line.center(width) for line in lines]


def _curve(rows: Sequence[Mapping[str, object]], key: str) -> list[tuple[float, float]]:
    points = [(finite(row, "step"), finite(row, key)) for row in rows]
    return [(step, value) for step, value in points if step is not None and value is not None]


def _transcript(result: EvalResult) -> Text:
    from rich.text import Text

    written = Text()
    position = 0
    for start, end in (*result.inserted, (len(result.transcript),) * 2):
        for stretch, style in (((position, start), ""), ((start, end), "cyan")):
            text = shorten(printable(result.transcript[slice(*stretch)]), _STRETCH)
            written.append(text, style=style)
        position = end
    written.highlight_regex(_TAG, "dim")
    written.rstrip()
    return written
