"""The screen: plain text of what is written, planned, found and answered, and its styles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsearch_cli.protocol.plan import PlanReading, read_plan
from rsearch_cli.rollout.citations import cite
from rsearch_cli.session.screen import Screen, citation_line, plan_lines, result_lines, trace_lines
from rsearch_cli.types import (
    NodeResult,
    Paragraph,
    Passage,
    PlanNode,
    SearchPlan,
    SearchRound,
    Segment,
    Sentence,
)


@pytest.fixture
def screen() -> Screen:
    return Screen()


def plan(edges: str, labels: str = "ABCD") -> SearchPlan:
    nodes = tuple(PlanNode(label, f"query {label}", "General") for label in labels)
    return SearchPlan(nodes, tuple((e[0], e[1]) for e in edges.split()))


def grow(screen: Screen, text: str) -> None:
    """Tell a text letter by letter, as a policy does."""
    for end in range(1, len(text) + 1):
        screen.on_text(text[:end])


def test_blocks_stand_under_their_names_and_tags_are_gone(screen, capsys):
    grow(screen, "<think> I look.\nTwice. </think>\n<search>\nNodes:\n</search>")
    assert capsys.readouterr().out == "thinking  I look.\nTwice."


def test_text_outside_of_blocks_and_made_up_results_are_shown_for_what_they_are(screen, capsys):
    grow(screen, "Well. <result> A: x </result> <answer></answer>")
    assert capsys.readouterr().out == "Well.\nresult invented by the model  A: x"


def test_a_whole_answer_is_followed_by_its_passages_and_its_cost(screen, capsys, make_answer):
    answer = make_answer()
    first, _, last = answer.trajectory.segments
    grow(screen, first.text)
    screen.on_plan(PlanReading(answer.trajectory.rounds[0].plan, (), ()))
    for result in answer.trajectory.rounds[0].results:
        screen.on_result(result)
    grow(screen, last.text)
    screen.finish(answer)
    assert capsys.readouterr().out == (
        "thinking  First [who].\n"
        "plan\n"
        "  A: author of Dracula (General)\n"
        "  └─ B: author birthplace (General)\n"
        "results\n"
        "  A: Dracula — A novel by Bram Stoker.\n"
        "  B: query expanded by Bram Stoker\n"
        "  B: Bram Stoker — Irish author, born in Dublin.\n"
        "  B: Dracula — A novel by Bram Stoker.\n"
        "answer  Dublin [1]\n"
        "  [1] Bram Stoker (https://x.org/s)\n"
        "  [2] Dracula (n)\n"
        "2 searches, 4 tokens, 1.2 s\n"
    )


def test_many_passages_are_cut_short(screen, capsys, make_answer):
    node = PlanNode("A", "x", "General")
    found = NodeResult(node, (), tuple(Passage(str(i), f"T{i}", "x") for i in range(7)))
    rounds = (SearchRound(SearchPlan((node,)), (), (found,)),)
    screen.finish(make_answer(rounds=rounds))
    assert "  [5] T4 (4)\n  and 2 more: /sources\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "line"),
    [
        ("eos", "no answer: the model stopped without an <answer> block\n"),
        (
            "length",
            "no answer: the token limit was reached (rollout.max_new_tokens is 80, "
            "policy.max_seq_length 512)\n",
        ),
    ],
)
def test_no_answer_is_said(screen, capsys, make_answer, stop, line):
    screen.on_text("I cannot tell.")
    screen.finish(make_answer(None, stop=stop, rounds=()))
    assert capsys.readouterr().out == f"I cannot tell.\n{line}0 searches, 4 tokens, 1.2 s\n"


def test_a_reply_without_any_text_is_said_to_be_one(screen, capsys, make_answer):
    screen.finish(make_answer(None, stop="eos", rounds=(), segments=(Segment("", (1,), "model"),)))
    assert capsys.readouterr().out.startswith(
        "no answer: the model wrote nothing; models with hidden thinking need more tokens "
        "(rollout.max_new_tokens is 80)\n"
    )


def test_a_thought_that_a_template_had_opened_is_not_shown_twice(screen, capsys):
    screen.on_text("First I loo")
    screen.on_text("First I look it up. </thi")
    screen.on_text("<think>First I look it up. </think>\n<answer> Rome")
    assert capsys.readouterr().out == "First I look it up.\nanswer  Rome"


def test_a_plan_without_a_reading_is_told(screen, capsys, quickstart):
    screen.on_plan(read_plan("Nodes:\nA: x (Gossip)", quickstart.protocol))
    out = capsys.readouterr().out
    assert out.startswith("plan not valid: line 2: source 'Gossip' is not one of General, News")
    assert out.endswith("; the agent answers from what it has\n")


def test_a_reply_that_begins_anew_is_told_and_shown_again(screen, capsys):
    screen.on_text("<think> First")
    screen.on_text("<think> Second")
    assert capsys.readouterr().out == (
        "thinking  First\nthe reply was interrupted and starts over\nthinking  Second"
    )


def test_foreign_text_obeys_nothing(screen, capsys):
    screen.on_text("<think> \x1b[2J [bold]x[/bold]\x07 \ud800 </think>")
    node = PlanNode("A", "x", "General")
    screen.on_result(NodeResult(node, (), (Passage("\x1b]0;t\x07", "[red]", "a\x1b[31mb"),)))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert out.startswith("thinking  \ufffd[2J [bold]x[/bold]\ufffd \ufffd\n")
    assert "[red] — a[31mb" in out


def test_after_an_interruption_a_line_begins(screen, capsys):
    screen.on_text("<think> I was")
    screen.give_up()
    screen.print("stopped")
    screen.on_text("<think> Anew")
    assert capsys.readouterr().out == "thinking  I was\nstopped\nthinking  Anew"


def test_styles_end_with_every_piece(screen, capsys):
    screen.styled = True
    screen.on_text("<think> a\nb")
    assert capsys.readouterr().out == "\x1b[36mthinking  \x1b[0m\x1b[2ma\x1b[0m\n\x1b[2mb\x1b[0m"


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(monkeypatch, variable):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen().styled
    monkeypatch.setenv(*variable)
    assert not Screen().styled


@pytest.mark.parametrize(
    ("edges", "tree"),
    [
        ("", ["A", "B", "C", "D"]),
        ("AB BC CD", ["A", "└─ B", "   └─ C", "      └─ D"]),
        ("AB AC BD CD", ["A", "├─ B", "│  └─ D, also after C", "└─ C"]),
        ("DA DB", ["C", "D", "├─ A", "└─ B"]),
    ],
)
def test_a_plan_is_a_tree_that_names_every_node_once(edges, tree):
    lines = plan_lines(plan(edges))
    shape = [
        line.replace(": query " + line.lstrip("│├└─ ")[0] + " (General)", "") for line in lines
    ]
    assert shape == tree


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (NodeResult(plan("").nodes[0]), ["A: nothing found"]),
        (NodeResult(plan("").nodes[0], error="busy\nstill"), ["A: search failed (busy still)"]),
        (
            NodeResult(plan("").nodes[0], (), (Passage("1", "", "x"),), unread=("a.example: 404",)),
            ["A: x", "A: not read: a.example: 404"],
        ),
        (
            NodeResult(plan("").nodes[0], (), (Passage("1", "Rome", "Rome lies there."),)),
            ["A: Rome lies there."],
        ),
        (NodeResult(plan("").nodes[0], (), (Passage("1", "", "x"),)), ["A: x"]),
    ],
)
def test_a_node_says_what_came_of_it(result, lines):
    assert list(result_lines(result)) == lines


def test_a_title_that_is_the_address_stands_once():
    passages = (Passage("Rome", "Rome", "x"), Passage("7", "", "Text alone."))
    node = PlanNode("A", "x", "General")
    rounds = [SearchRound(None, (), (NodeResult(node, (), passages),))]
    lines = [citation_line(citation) for citation in cite(rounds, None, 200)]
    assert lines == ["[1] Rome", "[2] Text alone. (7)"]


def test_the_trace_tells_who_wrote_what(make_answer):
    answer = make_answer(
        opening="<think>",
        segments=(
            Segment(" a\n\nb </think>\n", (1,), "model"),
            Segment("\n<result>\nA: x\n</result>\n", (2,), "system"),
            Segment("", (3,), "system"),
        ),
    )
    assert trace_lines(answer) == [
        ("prompt", "<think>"),
        ("model", " a"),
        ("model", ""),
        ("model", "b </think>"),
        ("system", "<result>"),
        ("system", "A: x"),
        ("system", "</result>"),
    ]


def test_a_long_answer_is_shown_with_what_is_wrong_with_it(screen, capsys, make_answer):
    sentences = (
        Sentence("Stoker was born in Dublin.", (1, 2)),
        Sentence("He \x1b[1mleft.", (2,), "the passages do not contain \x1b[1mleft", (9, 8)),
    )
    screen.finish(replace(make_answer(), paragraph=Paragraph(sentences)))
    assert capsys.readouterr().out.startswith(
        "answer  Dublin [1]\n"
        "in full  Stoker was born in Dublin. [1][2] He \ufffd[1mleft. [2][unsupported]\n"
        '  "He [1mleft.": the passages do not contain \ufffd[1mleft\n'
        "  there is no passage 9, 8\n"
        "  [1] Bram Stoker (https://x.org/s)\n"
    )


def test_why_there_is_no_long_answer_is_shown(screen, capsys, make_answer):
    screen.finish(replace(make_answer(), paragraph=Paragraph((), "no paragraph: none")))
    assert capsys.readouterr().out.startswith("answer  Dublin [1]\nno paragraph: none\n  [1] ")


def test_passages_that_a_long_answer_cites_are_listed(screen, capsys, make_answer):
    node = PlanNode("A", "x", "General")
    found = NodeResult(node, (), tuple(Passage(str(i), f"T{i}", "x") for i in range(8)))
    rounds = (SearchRound(SearchPlan((node,)), (), (found,)),)
    sentence = Sentence("x", (7,))
    screen.finish(replace(make_answer(rounds=rounds), paragraph=Paragraph((sentence,))))
    assert "  [5] T4 (4)\n  [7] T6 (6)\n  and 2 more: /sources\n" in capsys.readouterr().out
