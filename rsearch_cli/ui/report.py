"""What a person sees at the end of a run: the comparison, the reward's course, some trajectories.

Place in the path: reads the blocks that `metrics` made and the rows of `metrics.jsonl`; prints, and
returns nothing to the run. On failure: metrics that were not measured are left out. Text of models
and sources is printed as it is: never read as markup, without control characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rsearch_cli.evaluation.comparison import pair_results
from rsearch_cli.evaluation.intervals import METHODS
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.terminal import finite, printable, shorten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

_LABELS = {
    "em": "EM, greedy",
    "em_sampled": "EM, sampled",
    "f1": "F1, greedy",
    "plan_valid": "plan valid",
    "format_valid": "format valid",
}
# Key in the metrics rows: marker and colour of its curve. The last one is drawn over the others.
_CURVES = {
    "reward/answer": ("a", "blue"),
    "reward/plan": ("p", "green"),
    "reward/format": ("f", "yellow"),
    "reward": ("•", "red"),
    "validation": ("v", "magenta"),
}
_TAG = re.compile(r"</?(?:think|search|result|r|answer)>")
# Characters of one stretch of a transcript that are shown; trajectories.jsonl has the rest.
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
    """Print the comparison table, the reward's plot and `show` trajectories before and after.

    A supervised run has no reward to plot.

    Args:
        console: Where to print.
        summary: `summary.json`: the blocks `before`, `after` and `difference`.
        rows: The rows of `metrics.jsonl`.
        validations: The rows of `validation.jsonl`.
        before: Greedy predictions before training.
        after: Greedy predictions after it, of the same questions.
        show: Questions whose trajectories are shown; 0 shows none.

    Raises:
        DataError: `before` and `after` are not of the same questions.
    """
    from rich.text import Text

    console.print(comparison_table(summary))
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


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """Before, after and difference of each metric, with 95 % intervals; green is a sure gain.

    Args:
        summary: The blocks `before` and `after` of `metrics.summarise`, `difference` of
            `metrics.compare`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    before, after, difference = summary["before"], summary["after"], summary["difference"]
    title = "Held-out questions; EM is exact match, in brackets 95 % intervals"
    table = Table(title=title, caption=METHODS, box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    for heading in ("before", "after", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, label in _LABELS.items():
        if difference.get(metric) is None:
            continue
        low, high = difference["intervals"][metric]
        style = "green" if low > 0 else "red" if high < 0 else "dim"
        table.add_row(
            label,
            _estimate(before, metric),
            _estimate(after, metric),
            Text(_estimate(difference, metric, "+"), style=style),
        )
    table.add_row("questions", str(before["n"]), str(after["n"]), str(difference["n"]))
    if before["failed_searches"] or after["failed_searches"]:
        failed = (f"{b['failed_searches']} of {b['searches']}" for b in (before, after))
        table.add_row(Text("failed searches", style="red"), *failed, "")
    return table


def reward_plot(
    rows: Sequence[Mapping[str, object]], width: int, height: int, colour: bool = False
) -> str:
    """The reward and its three parts over the steps, with any validations, drawn with characters.

    Args:
        rows: Metrics rows with `step`, `reward`, `reward/answer`, `reward/plan`, `reward/format`
            and `validation`; what is missing or null in a row leaves a gap.
        width: Columns of the plot.
        height: Lines of the plot.
        colour: Whether to add terminal colour codes; without them the string is plain text.
    """
    import plotext

    curves = {key: _curve(rows, key) for key in _CURVES}
    steps = sorted({step for curve in curves.values() for step, _ in curve})
    if not steps:
        return "No step has a reward to plot."
    # plotext knows one figure only, for the whole process: clear what others drew, leave nothing.
    figure = plotext.figure
    figure.clear.all()
    figure.theme("colorless").plot_size(width, height).legend(False)
    for key, (symbol, shade) in _CURVES.items():
        if not curves[key]:
            continue
        marker = plotext.marker(symbol).fill(shade)
        xs, ys = zip(*curves[key], strict=True)
        figure.draw(figure.signal(list(xs), list(ys), marker=marker).lines(key == "reward"))
    validation = "   v validation F1" if curves["validation"] else ""
    figure.title(f"• reward   a answer   p plan   f format{validation}").label("step", 0, 0)
    figure.ruler(1, 0).lim(0, 1).ticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ticks = sorted({steps[i * (len(steps) - 1) // 4] for i in range(5)})
    figure.ruler(0, 0).ticks(ticks, [f"{step:g}" for step in ticks])
    drawn = str(figure.build().string(colorless=not colour))
    figure.clear.all()
    return "\n".join(line.rstrip() for line in drawn.rstrip().splitlines())


def describe_course(summary: Mapping[str, Any]) -> list[str]:
    """What there is to say of the course of the training: the best adapter, and alarms."""
    lines = []
    if best := summary.get("best"):
        kept = "kept" if summary["kept"] == "best" else "in best/; adapter/ is the last"
        lines.append(
            f"Best of the validations (v, {best['n']} other questions): F1 {best['f1']:.3f} after "
            f"step {best['step']}; {kept}"
        )
    if alarms := summary.get("alarms"):
        first = ", ".join(f"{name} after step {step}" for name, step in alarms.items())
        lines.append(f"Alarms: {first}; see alarms in metrics.jsonl")
    return lines


def choose_trajectories(
    before: Sequence[EvalResult], after: Sequence[EvalResult], show: int
) -> list[tuple[EvalResult, EvalResult]]:
    """`show` questions, before and after: those whose correctness changed first, else in order.

    Raises:
        DataError: The two are not of the same questions.
    """
    # sorted() is stable, and False comes before True.
    return sorted(pair_results(before, after), key=lambda pair: pair[0].em == pair[1].em)[:show]


def trajectory_panel(prediction: EvalResult, title: str) -> Panel:
    """One trajectory to read: question, transcript, answer, reference, and whether it is right.

    Tags are dimmed and what the system inserted is cyan: a result that the model made up itself is
    therefore not.
    """
    from rich.panel import Panel
    from rich.text import Text

    right = prediction.em == 1.0
    answer = "none" if prediction.answer is None else printable(prediction.answer)
    verdict = "right" if right else f"wrong (F1 {prediction.f1:.2f})"
    body = Text.assemble(
        ("Question   ", "bold"),
        printable(prediction.text),
        "\n\n",
        _transcript(prediction),
        "\n\n",
        ("Answer     ", "bold"),
        shorten(answer, _STRETCH),
        "  ",
        (verdict, "green" if right else "red"),
        ("\nReference  ", "bold"),
        printable(" | ".join(prediction.references)),
    )
    colour = "green" if right else "red"
    return Panel(body, title=Text(title), title_align="left", border_style=colour)


def _estimate(block: Mapping[str, Any], metric: str, sign: str = "-") -> str:
    low, high = block["intervals"][metric]
    # "z" turns a negative zero into a positive one.
    return f"{block[metric]:{sign}z.3f} [{low:{sign}z.2f}, {high:{sign}z.2f}]"


def _curve(rows: Sequence[Mapping[str, object]], key: str) -> list[tuple[float, float]]:
    points = [(finite(row, "step"), finite(row, key)) for row in rows]
    return [(step, value) for step, value in points if step is not None and value is not None]


def _transcript(prediction: EvalResult) -> Text:
    from rich.text import Text

    written = Text()
    position = 0
    for start, end in (*prediction.inserted, (len(prediction.transcript),) * 2):
        for stretch, style in (((position, start), ""), ((start, end), "cyan")):
            text = shorten(printable(prediction.transcript[slice(*stretch)]), _STRETCH)
            written.append(text, style=style)
        position = end
    written.highlight_regex(_TAG, "dim")
    written.rstrip()
    return written
