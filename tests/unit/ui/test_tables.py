"""Results as tables for a terminal and for Markdown."""

from __future__ import annotations

import io

from rich.console import Console

from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.summary import summarise
from rsearch_cli.ui.tables import (
    TableData,
    as_markdown,
    as_table,
    comparison_tables,
    describe_context,
    report_markdown,
    result_tables,
)

CONTEXT = {
    "n": 2,
    "questions": "some set",
    "split": "test",
    "policy": "model m",
    "sources": {
        "General": {"kind": "bm25", "corpus": "abc"},
        "News": {"kind": "bm25", "corpus": "abc"},
        "Web": {"kind": "exa", "corpus": "url"},
    },
    "top_k": 3,
    "expand_dependents": "entities",
    "judge": None,
    "batch_size": 8,
    "normalisation": "squad",
    "decoding": "greedy",
    "latency": "latency is that of a question's own calls and searches",
}


def evaluated(result):
    agent = [result("a", 1.0, type="bridge", title_recall=0.5), result("b", 0.0, type="bridge")]
    direct = [result(id, 0.0, method="direct") for id in "ab"]
    return {
        "context": CONTEXT,
        "methods": {"rsearch": summarise(agent), "direct": summarise(direct)},
        "differences": {"rsearch against direct": compare(direct, agent)},
    }


def test_a_score_never_stands_without_its_context(result):
    report = report_markdown(evaluated(result))
    for words in (
        "questions: 2 of some set, split test",
        "provider: bm25 abc for General, News; exa url for Web",
        "top-k: 3",
        "judge: none",
        "| exact match | 0.500 \\[0.09, 0.91\\] | 0.000 \\[0.00, 0.66\\] |",
        "| plan valid | 1.000 \\[0.34, 1.00\\] | – |",
        "95 % intervals: Wilson for shares",
        "## rsearch against direct, paired by question",
        "|  | direct | rsearch | difference | p | test | n |",
        "| bridge, rsearch | 2 |",
    ):
        assert words in report
    assert report.index("provider:") < report.index("exact match")


def test_flipped_questions_are_listed(result):
    compared = compare([result("a", 1.0)], [result("a", 0.0, answer="Lyon | \x1b[2J")])
    tables = comparison_tables({"first": "x:rsearch", "second": "y:rsearch", **compared})
    assert [table_data.title for table_data in tables] == [
        "x:rsearch (A) and y:rsearch (B), 1 questions",
        "Correct in A only: 1",
    ]
    assert "Lyon \\| �\\[2J |" in as_markdown(tables[1])


def test_a_tiny_p_value_is_no_zero(result):
    compared = compare(
        [result(str(i), 0.0) for i in range(20)], [result(str(i), 1.0) for i in range(20)]
    )
    (table_data, _) = comparison_tables({"first": "x", "second": "y", **compared})
    assert table_data.rows[0][4] == "<0.0001"


def test_two_sides_without_a_common_score_are_no_empty_table(result):
    searched, direct = result("a", None, f1=None), result("a", None, f1=None, method="direct")
    compared = compare([searched], [direct])
    (table_data,) = comparison_tables({"first": "x", "second": "y", **compared})
    assert table_data.rows == (("no metric has a score on both sides",),)


def test_text_of_a_model_is_no_markup_in_a_terminal():
    console = Console(file=io.StringIO(), width=80)
    console.print(as_table(TableData("T", ("", "A"), (("[red]x[/red]", "\x1b[2J"),), prose=True)))
    printed = console.file.getvalue()
    assert "[red]x[/red]" in printed and "\x1b" not in printed


def test_in_a_narrow_terminal_every_figure_stays_whole(result):
    long = {"type": "discoverer-employer", "title_recall": 0.5}
    told = {name: summarise([result("a", 1.0, **long)]) for name in ("rsearch", "rag")}
    ids = [str(number) for number in range(99)]
    compared = compare([result(i, 0.0) for i in ids], [result(i, 1.0) for i in ids])
    tables = result_tables(
        {"context": CONTEXT, "methods": told, "differences": {"rsearch against rag": compared}}
    )
    for table_data in tables:
        console = Console(file=io.StringIO(), width=80)
        console.print(as_table(table_data))
        printed = console.file.getvalue()
        assert "…" not in printed
        for cell in (cell for row in table_data.rows for cell in row[1:]):
            assert cell in printed


def test_a_judge_is_named_with_its_scores():
    assert "judge: gpt, continuous" in describe_context({**CONTEXT, "judge": "gpt, continuous"})
