"""Results and comparisons as sheets of text, for a terminal and for Markdown alike.

Place in the path: behind `results` and `comparison`; commands print sheets with rich, the report is
made of the same. On failure: none; what was not measured is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsearch_cli.evaluation.intervals import METHODS
from rsearch_cli.evaluation.metrics import BY_GROUP, LABELS
from rsearch_cli.terminal import escape_markdown, on_one_line, shorten

if TYPE_CHECKING:
    from rich.table import Table

DASH = "–"
_FLIP_CHARS = 60
_RULES = {
    "squad": "by SQuAD's rules",
    "cjk": "by letters in Chinese, Japanese, Korean, Thai and the like, else by SQuAD's rules",
}


@dataclass(frozen=True, slots=True)
class TableData:
    """A small table of text.

    Attributes:
        title: What it is about.
        columns: Headings; the first is of the rows' names.
        rows: Cells, as many as columns.
        prose: Whether the cells are sentences and not figures, which are set to the right.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    prose: bool = False


def result_tables(results: Mapping[str, Any]) -> list[TableData]:
    """The sheets of `results.json`: metrics by method, differences, types and levels."""
    methods: Mapping[str, Any] = results["methods"]
    tables = [_metrics_table(methods)]
    if results["differences"]:
        tables += [
            _difference_table(f"{name}, paired by question", comparison, name.split(" against "))
            for name, comparison in results["differences"].items()
        ]
    for key, title in (("by_type", "By type"), ("by_level", "By level")):
        tables += _group_tables(methods, key, title)
    return tables


def comparison_tables(comparison: Mapping[str, Any]) -> list[TableData]:
    """The sheets of one comparison: differences with their tests, and the flipped questions."""
    title = f"{comparison['first']} (A) and {comparison['second']} (B), {comparison['n']} questions"
    tables = [_difference_table(title, comparison, ("B", "A"))]
    for key, words in (("gained", "Right in B only"), ("lost", "Right in A only")):
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
    """What a score means nothing without, a line each: questions, model, provider, judge."""
    alike: dict[str, list[str]] = {}
    for name, source in context["sources"].items():
        alike.setdefault(f"{source['kind']} {source['corpus']}", []).append(name)
    provider = "; ".join(f"{kind} for {', '.join(names)}" for kind, names in alike.items())
    return [
        f"questions: {context['n']} of {context['questions']}, split {context['split']}",
        f"policy: {context['policy']}",
        f"provider: {provider}",
        f"top-k: {context['top_k']}; dependents expanded by: {context['expand_dependents']}",
        f"judge: {context['judge'] or 'none'}",
        f"exact match and F1: {_RULES[context['normalisation']]}",
        f"decoding: {context['decoding']}, {context['batch_size']} questions at once; "
        f"{context['latency']}",
    ]


def as_table(table_data: TableData) -> Table:
    """The sheet for a terminal; where that is narrow cells are wrapped, and nothing is cut off."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(on_one_line(table_data.title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if table_data.prose else 0, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for number, column in enumerate(table_data.columns):
        figures = bool(number) and not table_data.prose
        table.add_column(column, justify="right" if figures else "left", overflow="fold")
    for row in table_data.rows:
        table.add_row(*(Text(on_one_line(cell)) for cell in row))
    return table


def as_markdown(table_data: TableData) -> str:
    """The sheet for a report."""
    rule = ["---", *(["---" if table_data.prose else "---:"] * (len(table_data.columns) - 1))]
    lines = [_line(row) for row in (table_data.columns, rule, *table_data.rows)]
    return "\n".join([f"## {escape_markdown(table_data.title)}", "", *lines, ""])


def report_markdown(results: Mapping[str, Any]) -> str:
    """`report.md`: the context first, then every sheet."""
    context = [f"- {escape_markdown(line)}" for line in describe_context(results["context"])]
    note = (
        f"In brackets {METHODS}. Questions whose search or verdict failed "
        " are counted below and taken for nothing else; an answer that the policy's server "
        "did not give is in no mean."
    )
    tables = [as_markdown(table_data) for table_data in result_tables(results)]
    problems = [
        f"**Warning, {name}**: {escape_markdown(block['format_problem'])}\n"
        for name, block in results["methods"].items()
        if block.get("format_problem")
    ]
    return "\n".join(["# Evaluation", "", *context, "", *problems, note, "", *tables])


def _metrics_table(methods: Mapping[str, Any]) -> TableData:
    blocks = list(methods.values())
    rows: list[tuple[str, ...]] = [
        (label, *(_estimate(block, metric) for block in blocks))
        for metric, label in LABELS.items()
        if any(block[metric] is not None for block in blocks)
    ]
    rows += [
        ("searches a question", *(_number(b["searches_per_question"], ".2f") for b in blocks)),
        ("tokens a question", *(_number(b["tokens_per_question"], ".1f") for b in blocks)),
        *(
            (f"latency {name}, s", *(_number(b["latency_seconds"][name], ".2f") for b in blocks))
            for name in ("p50", "p95")
            if any(b["latency_seconds"][name] is not None for b in blocks)
        ),
        *(
            [("seconds a question", *(_number(b["seconds_per_question"], ".2f") for b in blocks))]
            if any(b["seconds_per_question"] is not None for b in blocks)
            else []
        ),
        ("USD", *(_number(b["usd"], ".4f") for b in blocks)),
        ("questions", *(str(b["n"]) for b in blocks)),
        ("failed searches", *(f"{b['failed_searches']} of {b['searches']}" for b in blocks)),
        ("failed answers", *(str(b["failed_answers"]) for b in blocks)),
        ("without a verdict", *(str(b["unscored"]) for b in blocks)),
    ]
    return TableData("Metrics", ("", *methods), tuple(rows))


def _difference_table(title: str, comparison: Mapping[str, Any], names: Sequence[str]) -> TableData:
    """Rows of metrics; `names` are those of the second and of the first side, as in "B - A"."""
    second, first = names
    rows = tuple(
        (
            LABELS[metric],
            f"{row['first']:.3f}",
            f"{row['second']:.3f}",
            f"{row['difference']:+z.3f} [{row['interval'][0]:+z.2f}, {row['interval'][1]:+z.2f}]",
            "<0.0001" if row["p"] < 0.0001 else f"{row['p']:.4f}",
            row["test"],
            str(row["n"]),
        )
        for metric, row in comparison["metrics"].items()
    )
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
    told = [m for m in BY_GROUP if any(group[m] is not None for _, group in groups)]
    rows = tuple(
        (name, str(group["n"]), *(_estimate(group, metric) for metric in told))
        for name, group in groups
    )
    return [TableData(title, ("", "n", *(LABELS[metric] for metric in told)), rows)]


def _estimate(block: Mapping[str, Any], metric: str) -> str:
    if block[metric] is None:
        return DASH
    low, high = block["intervals"][metric]
    return f"{block[metric]:.3f} [{low:.2f}, {high:.2f}]"


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _short(text: str | None) -> str:
    return DASH if text is None else shorten(" ".join(text.split()), _FLIP_CHARS)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"
