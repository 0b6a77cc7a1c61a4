"""The tables of evaluations and trainings, drawn on a terminal by rich or written as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rsearch_cli.evaluation.intervals import METHODS
from rsearch_cli.evaluation.metrics import BY_GROUP, LABELS, label_of
from rsearch_cli.terminal import escape_markdown, on_one_line, shorten

if TYPE_CHECKING:
    from rich.table import Table

DASH = "–"
"""What stands for a figure that was not measured."""

_FLIP_CHARS = 60
_TRAINING_LABELS = {
    "em": "EM, greedy",
    "em_sampled": "EM, sampled",
    "f1": "F1, greedy",
    "title_recall": "title recall",
    "all_titles": "all titles",
    "plan_valid": "plan valid",
    "format_valid": "format valid",
}
_NORMALISATIONS = {
    "squad": "SQuAD normalisation",
    "cjk": "letter by letter in Chinese, Japanese, Korean, Thai and the like, else SQuAD "
    "normalisation",
}


@dataclass(frozen=True, slots=True)
class TableData:
    """A table of text, independent of how it is drawn.

    Attributes:
        title: Heading.
        columns: Column headings; the first column names the rows.
        rows: Cells, one per column.
        prose: Whether the cells are sentences; figures are aligned to the right.
        caption: A line below the table on a terminal.
        styles: Row and column of a cell to its rich style.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    prose: bool = False
    caption: str = ""
    styles: Mapping[tuple[int, int], str] = field(default_factory=dict)


def training_table(summary: Mapping[str, Any]) -> TableData:
    """Return before, after and difference of each metric, with 95 % intervals.

    A difference whose interval excludes 0 is green or red.

    Args:
        summary: `summary.json`; its blocks `before`, `after` and `difference` are read.
    """
    before, after, difference = summary["before"], summary["after"], summary["difference"]
    rows: list[tuple[str, ...]] = []
    styles = {}
    for metric, label in _TRAINING_LABELS.items():
        if difference.get(metric) is None:
            continue
        low, high = difference["intervals"][metric]
        styles[len(rows), 3] = "green" if low > 0 else "red" if high < 0 else "dim"
        sides = (_estimate(side, metric) for side in (before, after))
        rows.append((label, *sides, _estimate(difference, metric, "+")))
    rows.append(("questions", str(before["n"]), str(after["n"]), str(difference["n"])))
    if before["failed_searches"] or after["failed_searches"]:
        styles[len(rows), 0] = "red"
        rows.append(("failed searches", _failed_searches(before), _failed_searches(after), ""))
    if any(unread := [block.get("failed_reads", 0) for block in (before, after)]):
        rows.append(("pages not read", *map(str, unread), ""))
    return TableData(
        "Held-out questions (EM: exact match; in brackets: 95 % intervals)",
        ("", "before", "after", "difference"),
        tuple(rows),
        caption=METHODS,
        styles=styles,
    )


def result_tables(results: Mapping[str, Any]) -> list[TableData]:
    """Return the tables of `results.json`: metrics by method, differences, types and levels."""
    methods: Mapping[str, Any] = results["methods"]
    return [
        _metrics_table(methods),
        *(
            _difference_table(f"{name}, paired by question", comparison, name.split(" against "))
            for name, comparison in results["differences"].items()
        ),
        *_group_tables(methods, "by_type", "By type"),
        *_group_tables(methods, "by_level", "By level"),
    ]


def comparison_tables(comparison: Mapping[str, Any]) -> list[TableData]:
    """Return the tables of one comparison: differences with tests, and the flipped questions."""
    title = f"{comparison['first']} (A) and {comparison['second']} (B), {comparison['n']} questions"
    tables = [_difference_table(title, comparison, ("B", "A"))]
    for key, words in (("gained", "Correct in B only"), ("lost", "Correct in A only")):
        rows = tuple(
            (
                flip["id"],
                _short(flip["question"]),
                _short(" | ".join(flip["references"])),
                _short(flip["first"]),
                _short(flip["second"]),
            )
            for flip in comparison[key]
        )
        columns = ("id", "question", "reference", "A", "B")
        if rows:
            tables.append(TableData(f"{words}: {len(rows)}", columns, rows, prose=True))
    return tables


def describe_context(context: Mapping[str, Any]) -> list[str]:
    """Return the conditions that a score means nothing without, one line each."""
    alike: dict[str, list[str]] = {}
    for name, source in context["sources"].items():
        alike.setdefault(f"{source['kind']} {source['corpus']}", []).append(name)
    provider = "; ".join(f"{kind} for {', '.join(names)}" for kind, names in alike.items())
    rescored = context.get("rescored")
    return [
        f"questions: {context['n']} of {context['questions']}, split {context['split']}",
        f"policy: {context['policy']}",
        f"provider: {provider}",
        f"top-k: {context['top_k']}; expansion of dependent queries: "
        f"{context['expand_dependents']}",
        f"judge: {context['judge'] or 'none'}",
        *([f"answers: those of {rescored}, scored anew"] if rescored else []),
        f"exact match and F1: {_NORMALISATIONS[context['normalisation']]}",
        f"decoding: {context['decoding']}, {context['batch_size']} questions at once; "
        f"{context['latency']}",
    ]


def report_markdown(results: Mapping[str, Any]) -> str:
    """Return `report.md`: the conditions, then every table of `results.json`."""
    conditions = [f"- {escape_markdown(line)}" for line in describe_context(results["context"])]
    problems = [
        f"**Warning, {name}**: {escape_markdown(block['format_problem'])}\n"
        for name, block in results["methods"].items()
        if block.get("format_problem")
    ]
    note = (
        f"In brackets are {METHODS}. Questions with a failed search have no title recall, those "
        "without a verdict no judge score; questions that the policy's server did not answer are "
        "in no mean. The last rows of the first table count them."
    )
    tables = [as_markdown(table_data) for table_data in result_tables(results)]
    return "\n".join(["# Evaluation", "", *conditions, "", *problems, note, "", *tables])


def suite_tables(results: Mapping[str, Any]) -> list[TableData]:
    """Return the tables of `suite.json`: the scores of each set, and published ones."""
    blocks = [
        (f"{name}, {method}", block)
        for name, each in results["sets"].items()
        for method, block in each["methods"].items()
    ]
    figures = [block for _, block in blocks]
    metrics = [m for m in BY_GROUP if any(block[m] is not None for block in figures)]
    metrics += _pass_metrics(figures)
    rows = tuple(
        (name, str(block["n"]), *(_estimate(block, metric) for metric in metrics))
        for name, block in blocks
    )
    columns = ("", "n", *(label_of(metric) for metric in metrics))
    tables = [TableData("Question sets", columns, rows, caption=METHODS)]
    published = [
        (name, figure["system"], figure["model"], f"{figure['f1']:.3f}", figure["setting"])
        for name, figures in results["published"].items()
        for figure in figures
    ]
    if published:
        sources = dict.fromkeys(f["source"] for fs in results["published"].values() for f in fs)
        tables.append(
            TableData(
                "Published F1 of other systems, with other corpora and models",
                ("", "system", "model", "F1", "corpus, retriever, judge, questions"),
                tuple(published),
                prose=True,
                caption="; ".join(sources),
            )
        )
    return tables


def describe_suite(results: Mapping[str, Any]) -> list[str]:
    """Return the conditions of each set of a suite, one line each."""
    return [
        f"{name}: {line}"
        for name, each in results["sets"].items()
        for line in describe_context(each["context"])
    ]


def suite_markdown(results: Mapping[str, Any]) -> str:
    """Return `suite.md`: every table of `suite.json`, then the conditions of each set."""
    parts = ["# Suite", ""]
    for table_data in suite_tables(results):
        parts += [as_markdown(table_data), escape_markdown(table_data.caption), ""]
    parts += [f"- {escape_markdown(line)}" for line in describe_suite(results)]
    return "\n".join([*parts, ""])


def as_table(table_data: TableData) -> Table:
    """Return the table for a terminal; a narrow terminal wraps cells and cuts nothing off."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(on_one_line(table_data.title)),
        title_justify="left",
        caption=Text(table_data.caption) if table_data.caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if table_data.prose else 0, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for number, column in enumerate(table_data.columns):
        figures = bool(number) and not table_data.prose
        table.add_column(column, justify="right" if figures else "left", overflow="fold")
    for row, cells in enumerate(table_data.rows):
        table.add_row(
            *(
                Text(on_one_line(cell), style=table_data.styles.get((row, column), ""))
                for column, cell in enumerate(cells)
            )
        )
    return table


def as_markdown(table_data: TableData) -> str:
    """Return the table for a report."""
    rule = ["---", *(["---" if table_data.prose else "---:"] * (len(table_data.columns) - 1))]
    lines = [_line(row) for row in (table_data.columns, rule, *table_data.rows)]
    return "\n".join([f"## {escape_markdown(table_data.title)}", "", *lines, ""])


def _metrics_table(methods: Mapping[str, Any]) -> TableData:
    blocks = list(methods.values())
    samples = max(block.get("samples", 0) for block in blocks)
    passes = _pass_metrics(blocks)
    unit = "answer" if samples else "question"
    latencies = [block["latency_seconds"] for block in blocks]
    rows: list[tuple[str, ...]] = [
        *(
            (label_of(metric), *(_estimate(block, metric) for block in blocks))
            for metric in (*LABELS, *passes)
            if any(block.get(metric) is not None for block in blocks)
        ),
        (f"searches per {unit}", *(_number(b["searches_per_question"], ".2f") for b in blocks)),
        (f"tokens per {unit}", *(_number(b["tokens_per_question"], ".1f") for b in blocks)),
        *(
            (f"latency {name}, s", *(_number(latency[name], ".2f") for latency in latencies))
            for name in ("p50", "p95")
            if any(latency[name] is not None for latency in latencies)
        ),
    ]
    if any(block["seconds_per_question"] is not None for block in blocks):
        seconds = (_number(block["seconds_per_question"], ".2f") for block in blocks)
        rows.append((f"seconds per {unit}", *seconds))
    unread = [block.get("failed_reads", 0) for block in blocks]
    rows += [
        ("USD", *(_number(block["usd"], ".4f") for block in blocks)),
        ("questions", *(str(block["n"]) for block in blocks)),
        ("failed searches", *(_failed_searches(block) for block in blocks)),
        *([("pages not read", *map(str, unread))] if any(unread) else []),
        ("failed answers", *(str(block["failed_answers"]) for block in blocks)),
        ("without a verdict", *(str(block["unscored"]) for block in blocks)),
    ]
    title = f"Metrics (avg@{samples}: a question's score is the mean of its samples)"
    return TableData(title if samples else "Metrics", ("", *methods), tuple(rows))


def _difference_table(title: str, comparison: Mapping[str, Any], names: Sequence[str]) -> TableData:
    """Return a row per metric; `names` are those of the second and the first side, as in B - A."""
    second, first = names
    rows = tuple(
        (
            label_of(metric),
            f"{row['first']:.3f}",
            f"{row['second']:.3f}",
            _format_estimate(row["difference"], row["interval"], "+"),
            "<0.0001" if row["p"] < 0.0001 else f"{row['p']:.4f}",
            row["test"],
            str(row["n"]),
        )
        for metric, row in comparison["metrics"].items()
    )
    if not rows:
        return TableData(title, ("",), (("no metric has a score on both sides",),), prose=True)
    return TableData(title, ("", first, second, "difference", "p", "test", "n"), rows)


def _group_tables(methods: Mapping[str, Any], key: str, title: str) -> list[TableData]:
    groups = [
        (f"{name}, {method}", block[key][name])
        for name in sorted({name for block in methods.values() for name in block[key]})
        for method, block in methods.items()
        if name in block[key]
    ]
    if not groups:
        return []
    metrics = [m for m in BY_GROUP if any(group[m] is not None for _, group in groups)]
    rows = tuple(
        (name, str(group["n"]), *(_estimate(group, metric) for metric in metrics))
        for name, group in groups
    )
    return [TableData(title, ("", "n", *(LABELS[metric] for metric in metrics)), rows)]


def _pass_metrics(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of pass@k that any block of figures has."""
    return list(dict.fromkeys(name for b in blocks for name in b["intervals"] if "pass@" in name))


def _estimate(block: Mapping[str, Any], metric: str, sign: str = "-") -> str:
    if block[metric] is None:
        return DASH
    return _format_estimate(block[metric], block["intervals"][metric], sign)


def _format_estimate(value: float, interval: Sequence[float], sign: str) -> str:
    low, high = interval
    # "z" turns a negative zero into a positive one.
    return f"{value:{sign}z.3f} [{low:{sign}z.2f}, {high:{sign}z.2f}]"


def _failed_searches(block: Mapping[str, Any]) -> str:
    return f"{block['failed_searches']} of {block['searches']}"


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _short(text: str | None) -> str:
    return DASH if text is None else shorten(" ".join(text.split()), _FLIP_CHARS)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"
