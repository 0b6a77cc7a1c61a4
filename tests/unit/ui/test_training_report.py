"""The report of a training: table, plot and trajectories, with text that looks like markup."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.training_evaluation import (
    Evaluation,
    summarise_difference,
    summarise_evaluation,
)
from rsearch_cli.ui.tables import as_table, training_table
from rsearch_cli.ui.training_report import (
    choose_trajectories,
    describe_course,
    print_report,
    reward_plot,
    trajectory_panel,
)

TRANSCRIPT = (
    "<think>[red]which[/nope]</think>\n"
    "<search>\nNodes:\nA: capital [1] (General)\nEdges:\n</search>"
    "\n<result>\n[bold]Paris[/bold] \x1b[2J is the capital.\n</result>\n<answer> Paris </answer>"
)
INSERTED = ((TRANSCRIPT.index("\n<result>"), TRANSCRIPT.index("<answer>")),)
ROWS = [
    {
        "step": step,
        "reward": step / 20,
        "reward/answer": step / 40,
        "reward/plan": 0.9,
        "reward/format": 1.0,
    }
    for step in range(1, 21)
]


def prediction(id: str, em: float) -> EvalResult:
    return EvalResult(
        id=id,
        text=f"What is the capital, {id}? [/]",
        references=("Paris", "Paname"),
        answer="Paris" if em else "Rome [bold]",
        em=em,
        f1=em,
        plan_valid=1.0,
        format_valid=1.0,
        searches=1,
        completion_tokens=30,
        transcript=TRANSCRIPT,
        inserted=INSERTED,
    )


def predictions(*scores: float) -> list[EvalResult]:
    return [prediction(f"q{i}", score) for i, score in enumerate(scores)]


def summary(sampled: bool = True) -> dict[str, Any]:
    before, after = predictions(*[0, 0, 0, 1] * 10), predictions(*[1, 1, 0, 1] * 10)
    sides = [Evaluation(side, side if sampled else None) for side in (before, after)]
    return {
        "before": summarise_evaluation(sides[0]),
        "after": summarise_evaluation(sides[1]),
        "difference": summarise_difference(*sides),
    }


def render(renderable: RenderableType, terminal: bool = False, width: int = 100) -> str:
    console = Console(
        file=StringIO(), width=width, force_terminal=terminal, _environ={"TERM": "xterm-256color"}
    )
    console.print(renderable)
    return console.file.getvalue()


def line_of(text: str, label: str) -> str:
    (line,) = (line for line in text.splitlines() if label in line)
    return line


def test_table_shows_both_sides_and_the_difference_with_intervals() -> None:
    block = summary()
    text = render(as_table(training_table(block)))
    low, high = block["difference"]["intervals"]["em"]
    assert f"+0.500 [{low:+.2f}, {high:+.2f}]" in line_of(text, "EM, greedy")
    assert "0.250 [" in line_of(text, "EM, greedy")
    assert "0.750 [" in line_of(text, "EM, greedy")
    assert "+0.500 [" in line_of(text, "EM, sampled")
    assert "+0.500 [" in line_of(text, "F1, greedy")
    for label in ("plan valid", "format valid"):
        assert line_of(text, label).count("1.000 [0.91, 1.00]") == 2
        assert "+0.000 [-0.07, +0.07]" in line_of(text, label)
    assert "95 % intervals: Wilson for shares" in text
    assert line_of(text, "questions  ").split()[1:] == ["40", "40", "40"]


def test_table_fits_eighty_columns() -> None:
    text = render(as_table(training_table(summary())), width=80)
    assert "+0.500 [+0.31, +0.64]" in line_of(text, "EM, sampled")
    assert "…" not in text


def test_table_has_no_negative_zero() -> None:
    block = summary()
    block["difference"]["f1"] = -1e-9
    assert "+0.000 [" in line_of(render(as_table(training_table(block))), "F1, greedy")


def test_table_leaves_out_what_was_not_sampled() -> None:
    assert "sampled" not in render(as_table(training_table(summary(sampled=False))))


def test_table_counts_failed_searches_where_there_were_any() -> None:
    block = summary(sampled=False)
    assert "failed" not in render(as_table(training_table(block)))
    block["after"]["failed_searches"] = 3
    shown = line_of(render(as_table(training_table(block))), "failed searches")
    assert " ".join(shown.split()) == "failed searches 0 of 40 3 of 40"


def test_table_counts_pages_that_were_not_read_where_there_were_any() -> None:
    block = summary(sampled=False)
    assert "pages" not in render(as_table(training_table(block)))
    block["before"]["failed_reads"] = 2
    block["after"].pop("failed_reads")  # a run of an earlier version
    shown = line_of(render(as_table(training_table(block))), "pages not read")
    assert " ".join(shown.split()) == "pages not read 2 0"


def test_only_a_sure_difference_is_coloured() -> None:
    text = render(as_table(training_table(summary())), terminal=True)
    assert "\x1b[32m+0.500" in line_of(text, "EM, greedy")
    assert "\x1b[2m+0.000" in line_of(text, "plan valid")


def test_plot_draws_all_four_curves_in_plain_text() -> None:
    plot = reward_plot(ROWS, width=80, height=18)
    assert "\x1b" not in plot
    assert plot.splitlines()[0].split() == [
        "•",
        "reward",
        "a",
        "answer",
        "p",
        "plan",
        "f",
        "format",
    ]
    body = "\n".join(plot.splitlines()[1:-2])
    assert all(symbol in body for symbol in "•apf")
    assert max(map(len, plot.splitlines())) <= 80
    assert len(plot.splitlines()) <= 18
    assert plot.splitlines()[-2].split() == ["1", "5", "10", "15", "20"]


def test_plot_has_further_parts_and_room_for_penalties() -> None:
    rows = [{**row, "reward/retrieval": 0.9, "reward/no_answer": -0.4} for row in ROWS]
    title, *body = reward_plot(rows, width=100, height=18).splitlines()
    assert "1 no_answer   2 retrieval" in title
    (low,) = (line for line in body if line.count("1") > 10)
    assert body.index(low) > next(i for i, line in enumerate(body) if line.startswith("    0┤"))
    assert any(line.startswith(" -0.5┤") for line in body)


ALL_PARTS = [
    {
        **row,
        "reward": row["step"] / 10,
        "reward/economy": 0.5,
        "reward/length": -0.1,
        "reward/no_answer": -0.2,
        "reward/retrieval": 1.0,
        "validation": 0.3,
    }
    for row in ROWS
]


def test_plot_shows_a_reward_above_one_to_its_end() -> None:
    body = reward_plot(ALL_PARTS, width=80, height=18).splitlines()[2:-2]
    (top,) = (line for line in body if line.startswith("   2┤"))
    assert top.rstrip("│").endswith("•")
    assert any(line.startswith("-0.5┤") for line in body)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_plot_names_every_curve_at_every_width(width: int) -> None:
    lines = reward_plot(ALL_PARTS, width, height=18).splitlines()
    assert len(lines) <= 18 and max(map(len, lines)) <= width
    legend = lines[: next(i for i, line in enumerate(lines) if "┌" in line)]
    assert " ".join(" ".join(legend).split()) == (
        "• reward a answer p plan f format 1 economy 2 length 3 no_answer 4 retrieval "
        "v validation F1"
    )


def test_plot_rises_with_the_reward() -> None:
    body = reward_plot(ROWS, width=80, height=18).splitlines()[1:-2]
    first, last = (
        next(i for i, line in enumerate(body) if "•" in line[part])
        for part in (slice(0, 20), slice(70, 80))
    )
    assert first > last


def test_plot_has_colours_on_request_only() -> None:
    assert "\x1b[" in reward_plot(ROWS, width=80, height=18, colour=True)


def test_plot_is_the_same_again() -> None:
    first = reward_plot(ROWS, width=80, height=18)
    reward_plot(ROWS[:3], width=40, height=9, colour=True)
    assert reward_plot(ROWS, width=80, height=18) == first


def test_plot_skips_steps_without_a_score() -> None:
    holes = [{**row, "reward": None, "reward/answer": math.nan} for row in ROWS[:10]] + ROWS[10:]
    body = "\n".join(reward_plot(holes, width=80, height=18).splitlines()[1:])
    left = "\n".join(line[5:35] for line in body.splitlines())
    assert "•" in body
    assert "•" not in left
    assert "p" in left


@pytest.mark.parametrize("rows", [[], [{"step": 1}], [{"step": 1, "reward": None}]])
def test_plot_without_a_reward_says_so(rows: list[dict[str, object]]) -> None:
    assert reward_plot(rows, width=80, height=18) == "No step has a reward to plot."


def test_plot_of_a_single_step() -> None:
    assert "•" in "\n".join(reward_plot(ROWS[:1], width=60, height=12).splitlines()[1:])


def test_panel_shows_text_as_it_is() -> None:
    text = render(trajectory_panel(prediction("q1", 0.0), "before [i]training[/i]"))
    for literal in ("before [i]training[/i]", "[red]which[/nope]", "[bold]Paris[/bold]", "q1? [/]"):
        assert literal in text
    assert "Rome [bold]  wrong (F1 0.00)" in text
    assert "Reference  Paris | Paname" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_panel_disarms_control_characters(terminal: bool) -> None:
    text = render(trajectory_panel(prediction("q1", 1.0), "after"), terminal)
    assert "\x1b[2J" not in text
    assert "\ufffd[2J" in text


def test_panel_colours_what_the_system_inserted_and_nothing_else() -> None:
    forged = replace(prediction("q1", 1.0), inserted=())
    real = render(trajectory_panel(prediction("q1", 1.0), "after"), terminal=True)
    assert "\x1b[36m[bold]Paris[/bold]" in real
    assert "\x1b[2m<think>" in real
    assert "\x1b[36m" not in render(trajectory_panel(forged, "after"), terminal=True)


def test_panel_says_correct_or_wrong_and_names_a_missing_answer() -> None:
    assert "Paris  correct" in render(trajectory_panel(prediction("q1", 1.0), "after"))
    silent = replace(prediction("q1", 0.0), answer=None)
    assert "Answer     none  wrong" in render(trajectory_panel(silent, "after"))


def test_panel_shortens_long_stretches_and_keeps_their_ends() -> None:
    long = "<think>" + "so " * 5000 + "</think><search>Nodes:</search>"
    text = render(trajectory_panel(replace(prediction("q", 1.0), transcript=long, inserted=()), ""))
    assert "<think>so" in text
    assert "[…]" in text
    assert "<search>Nodes:</search>" in text
    assert len(text) < 4000


def test_changed_questions_are_shown_first_and_in_order() -> None:
    before, after = predictions(1, 0, 0, 1, 0), predictions(1, 0, 1, 0, 0)
    chosen = choose_trajectories(before, after[::-1], 3)
    assert [(old.id, new.id) for old, new in chosen] == [("q2", "q2"), ("q3", "q3"), ("q0", "q0")]
    assert choose_trajectories(before, after, 0) == []


@pytest.mark.parametrize("show", [0, 3])
def test_report_puts_everything_together(show: int) -> None:
    console = Console(file=StringIO(), width=100)
    before, after = predictions(0, 0, 0, 1), predictions(1, 1, 1, 1)
    print_report(console, summary(), ROWS, [], before, after, show)
    text = console.file.getvalue()
    assert text.index("EM, greedy") < text.index("• reward   a answer")
    assert text.count("before training") == text.count("after training") == show
    assert "\x1b" not in text


def test_report_shows_validations_the_best_one_and_alarms() -> None:
    console = Console(file=StringIO(), width=80)
    before, after = predictions(0, 0, 0, 1), predictions(1, 1, 1, 1)
    course = {"best": {"step": 2, "f1": 0.5, "n": 20}, "kept": "last", "alarms": {"truncated": 3}}
    validations = [{"step": 2, "f1": 0.5}, {"step": 3, "f1": 0.25}]
    print_report(console, summary() | course, ROWS, validations, before, after, 0)
    text = console.file.getvalue()
    assert "f format   v validation F1" in text
    assert text.count("v") > text.count("v validation") + 2
    assert (
        "Best validation (v, 20 other questions): F1 0.500 after step 2; that adapter is in best/\n"
        "Alarms: truncated after step 3; details: alarms in metrics.jsonl\n"
    ) in text
    assert describe_course(course | {"kept": "best", "alarms": {}}) == [
        "Best validation (v, 20 other questions): F1 0.500 after step 2; that adapter is kept in "
        "adapter/"
    ]


def test_report_says_what_was_discarded() -> None:
    figures = {"rollouts": 166, "sampled": 358, "share": 0.4637, "usd": 0.4312}
    (line,) = describe_course(summary() | {"discarded": figures})
    assert line.startswith("Discarded: 166 of 358 rollouts (46%, $0.4312)")


def test_report_of_a_run_without_either_says_nothing_of_them() -> None:
    assert describe_course(summary() | {"best": None, "kept": "last", "alarms": {}}) == []
    assert "validation" not in reward_plot(ROWS, 80, 18)


def test_report_of_a_supervised_run_has_no_reward_to_plot() -> None:
    console = Console(file=StringIO(), width=100)
    print_report(
        console, summary() | {"stage": "sft"}, [], [], predictions(0, 1), predictions(1, 1), 0
    )
    assert "EM, greedy" in console.file.getvalue()
    assert "reward" not in console.file.getvalue()


def test_panel_of_an_answer_without_a_reference_does_not_judge_it() -> None:
    unknown = replace(prediction("q1", 0.0), references=(), em=None, f1=None)
    text = render(trajectory_panel(unknown, "after"))
    assert "Rome [bold]  not scored" in text
    assert "Reference  none" in text
