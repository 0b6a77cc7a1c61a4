from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsearch_cli.protocol.plan import (
    MAX_CHARS,
    MAX_LINES,
    MAX_NOTES,
    PlanReading,
    read_plan,
    render_plan,
)
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import PlanNode, SearchPlan

RULES = ProtocolConfig()
GROUPS = yaml.safe_load(Path(__file__).with_name("plan_mutations.yaml").read_text(encoding="utf-8"))
MUTATIONS = [
    pytest.param(case, id=f"{group}-{number}")
    for group, cases in GROUPS.items()
    for number, case in enumerate(cases, start=1)
]


def nodes_and_edges(reading: PlanReading) -> list[str]:
    lines = render_plan(reading.plan).splitlines() if reading.plan else []
    return [line for line in lines if line not in ("Nodes:", "Edges:")]


@pytest.mark.parametrize(
    ("query", "words"),
    [("红" * 30, None), ("红" * 31, 11), ("ไทย" * 20, None), ("ไทย" * 21, 11)],
)
def test_a_query_without_blanks_has_a_limit_too(query, words):
    reading = read_plan(f"Nodes:\nA: {query} (General)\nEdges:\n", RULES)
    if words is None:
        assert reading.plan is not None
    else:
        (problem,) = reading.problems
        assert f"has {words} words, at most 10 are allowed" in problem


def test_there_are_at_least_200_different_mutations():
    assert len({case.values[0]["text"] for case in MUTATIONS}) >= 200


@pytest.mark.parametrize("case", MUTATIONS)
def test_mutation(case):
    reading = read_plan(case["text"], RULES)
    assert list(reading.problems) == case.get("problems", [])
    assert nodes_and_edges(reading) == case.get("plan", [])
    if reading.plan:
        expected = case.get("repairs", [])
        assert len(reading.repairs) == len(expected), reading.repairs
        for repair, part in zip(reading.repairs, expected, strict=True):
            assert part in repair


def test_limits_and_sources_come_from_the_recipe():
    rules = ProtocolConfig(sources={"Wiki Pages": "facts"}, max_nodes=1, max_query_words=2)
    reading = read_plan("Nodes:\nA: Emma author (wiki pages)\nEdges:", rules)
    assert reading.plan == SearchPlan((PlanNode("A", "Emma author", "Wiki Pages"),))
    assert read_plan("A: who wrote Emma (Wiki Pages)", rules).problems == (
        "line 1: query 'who wrote Emma' has 3 words, at most 2 are allowed",
    )
    assert read_plan("A: Emma (General)", rules).problems == (
        "line 1: source 'General' is not Wiki Pages",
    )
    assert read_plan("A: Emma (Wiki Pages)\nB: Ann (Wiki Pages)", rules).problems == (
        "more nodes than the limit of 1",
    )


def test_a_source_that_two_names_differ_from_in_case_alone_is_not_guessed():
    rules = ProtocolConfig(sources={"News": "papers", "NEWS": "television"})
    assert read_plan("A: Emma (NEWS)", rules).plan.nodes[0].source == "NEWS"
    assert read_plan("A: Emma (news)", rules).problems == (
        "line 1: source 'news' is not one of News, NEWS",
    )


def test_rendered_plan_is_canonical():
    plan = SearchPlan(
        (PlanNode("A", "who wrote it (1977)", "General"), PlanNode("B", "x: y", "News")),
        (("A", "B"),),
    )
    assert render_plan(plan) == (
        "Nodes:\nA: who wrote it (1977) (General)\nB: x: y (News)\nEdges:\nA -> B"
    )
    assert read_plan(render_plan(plan), RULES) == PlanReading(plan, (), ())


def test_oversize_input_gives_one_problem():
    text = "x" * (MAX_CHARS + 1)
    assert read_plan(text, RULES).problems == (
        "the plan has 20001 characters and 1 lines, at most 20000 characters and 1000 lines "
        "are read",
    )
    (problem,) = read_plan("A:\n" * (MAX_LINES + 1), RULES).problems
    assert problem.startswith("the plan has 3003 characters and 1002 lines, at most")


def test_no_more_than_the_first_problems_are_reported():
    reading = read_plan("\n".join(f"junk {i}" for i in range(100)), RULES)
    assert len(reading.problems) == MAX_NOTES
    assert reading.problems[-1].startswith("line 20: 'junk 19' has no label")
    edges = "; ".join(f"A -> X{i}" for i in range(100))
    assert len(read_plan(f"A: x (General)\nEdges:\n{edges}", RULES).problems) == MAX_NOTES


# Texts out of the grammar's own parts find more than random characters do.
PARTS = st.sampled_from(
    [
        *["Nodes:", "Edges:", "nodes", "**Edges**:", "\n", "\r\n", "\n\n", " ", "\u00a0", "- "],
        *["A", "B", "b", "Node C", "12", "1.", "(2)", "[A]", "A)", ":", "：", "::", "->", "→"],
        *["--", ">", "&gt;", ";", ",", "、", ".", "(General)", "（news）", "[Academy", "(", ")"],
        *["((", "]", "<", "「", "」", '"', "'", "“", "”", "*", "**", "`", "```", "None", "who is"],
        *["source: News", "General", "(x)", "Café", "e\u0301", "\u0301", "\u200b", "\x00", "谁"],
    ]
)
NODE_LIKE = st.builds(
    "{}{} {}{} ({}){}".format,
    st.sampled_from(["A", "b", "1", "(2) C", "[D]", "- E", "node f", "**G**", "1. H"]),
    st.sampled_from([":", "：", " :", ")", "", "::"]),
    st.lists(PARTS, max_size=4).map("".join),
    st.sampled_from(["", " ", '"', "(", "x"]),
    st.sampled_from(["General", "news", "NEWS", "Source: Academy", "Wiki", ""]),
    st.sampled_from(["", ".", ";", ")", " \r"]),
)
EDGE_LIKE = st.lists(
    st.sampled_from(["A", "b", "C", "1", "D", "E", "->", "→", " --> ", "; ", ", ", "None"]),
    max_size=9,
).map("".join)
SLOPPY = st.builds(
    "{}\n{}\n{}\n{}".format,
    st.sampled_from(["Nodes:", "nodes", "", "Nodes: "]),
    st.lists(NODE_LIKE, max_size=4).map("\n".join),
    st.sampled_from(["Edges:", "", "**Edges**", "Edges: None"]),
    EDGE_LIKE,
)
TEXTS = st.one_of(st.text(), st.lists(PARTS, max_size=30).map("".join), NODE_LIKE, SLOPPY)


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_any_text_gives_a_plan_or_problems_and_a_plan_is_stable(text):
    reading = read_plan(text, RULES)
    assert (reading.plan is None) == bool(reading.problems)
    assert len(reading.problems) <= MAX_NOTES
    if reading.plan:
        assert_valid(reading.plan)
        assert read_plan(render_plan(reading.plan), RULES) == PlanReading(reading.plan, (), ())


def assert_valid(plan: SearchPlan) -> None:
    labels = [node.label for node in plan.nodes]
    assert 1 <= len(labels) == len(set(labels)) <= RULES.max_nodes
    assert {label for edge in plan.edges for label in edge} <= set(labels)
    assert len(plan.edges) == len(set(plan.edges))
    assert sum(len(wave) for wave in plan.waves()) == len(labels)  # waves() refuses a cycle
    for node in plan.nodes:
        assert node.source in RULES.sources
        assert 1 <= len(node.query.split()) <= RULES.max_query_words


UNIQUE = {"min_size": 1, "max_size": 8, "unique": True}


@st.composite
def valid_plans(draw) -> SearchPlan:
    word = st.from_regex(r"[a-z0-9][a-z0-9'é()\-]{0,8}[a-z0-9]", fullmatch=True)
    labels = draw(st.lists(st.from_regex(r"[A-Z][A-Z0-9_]?", fullmatch=True), **UNIQUE))
    nodes = tuple(
        PlanNode(
            label,
            " ".join(draw(st.lists(word, min_size=1, max_size=10))),
            draw(st.sampled_from(sorted(RULES.sources))),
        )
        for label in labels
    )
    forward = [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]
    edges = draw(st.lists(st.sampled_from(forward), unique=True)) if forward else []
    order = draw(st.permutations(nodes))
    return SearchPlan(tuple(order), tuple(edges))


@settings(max_examples=200, deadline=None)
@given(valid_plans())
def test_every_valid_plan_survives_being_rendered_and_read(plan):
    assert read_plan(render_plan(plan), RULES) == PlanReading(plan, (), ())


@settings(max_examples=100, deadline=None)
@given(valid_plans(), st.data())
def test_closing_a_cycle_makes_any_plan_invalid(plan, data):
    assume(plan.edges)
    parent, child = data.draw(st.sampled_from(plan.edges))
    (problem,) = read_plan(f"{render_plan(plan)}\n{child} -> {parent}", RULES).problems
    assert problem.startswith("the edges form a cycle: ")


# Each just below what is read, or at the 100 kB of the promise.
ADVERSARIAL = {
    "unclosed tags": "<<<<search" * 10_000,
    "dashes": "A" + "-" * 19_900 + "> B",
    "many edges": "Edges:\n" + "A->B;" * 3_900,
    "one chain": "Edges:\n" + "A->" * 6_500 + "A",
    "distinct edges": "A: x (General)\nEdges:\n" + ";".join(f"a->b{i}" for i in range(2_000)),
    "nodes on a line": "A: x (General) " * 1_300,
    "nodes on lines": "A: x (General)\n" * 999,
    "sources": "A: " + "(General) " * 1_990,
    "open brackets": "A: " + "(" * 19_990,
    "nested brackets": "A: " + "「" * 9_900 + "」" * 9_900,
    "quotes": '"' * 20_000,
    "backticks and stars": "`*" * 10_000,
    "colons": "A" + ":" * 19_900 + "x (News)",
    "numbering": "1: " * 6_600,
    "combining marks": "a" + "\u0301\u0327" * 9_900,
    "full width": "Ａ：ｘ（" * 4_900,
    "bullets": "-\n" * 1_000,
    "none": "Edges:\n" + "None\n" * 990,
    "blank lines": "\n" * 100_000,
    "blanks": " " * 100_000,
    "zero bytes": "\x00" * 100_000,
}


@pytest.mark.parametrize("text", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_nothing_of_up_to_100_kb_takes_over_50_ms(text):
    seconds = []
    for _ in range(3):
        started = time.process_time()
        reading = read_plan(text, RULES)
        seconds.append(time.process_time() - started)
    assert (reading.plan is None) == bool(reading.problems)
    assert min(seconds) < 0.05


def test_a_node_without_a_source_means_the_only_one_there_is():
    rules = ProtocolConfig(sources={"Wiki": "facts"})
    reading = read_plan("Nodes:\nA: author of Dracula\nB: Dracula (Wiki)\nEdges:", rules)
    assert reading.plan is not None
    assert [(n.query, n.source) for n in reading.plan.nodes] == [
        ("author of Dracula", "Wiki"),
        ("Dracula", "Wiki"),
    ]
    assert reading.repairs == ("line 2: 'author of Dracula' names no source; Wiki is the only one",)


def test_a_bracket_that_names_no_source_is_not_guessed_away_even_with_one_source():
    reading = read_plan(
        "Nodes:\nA: Dracula (News)\nEdges:", ProtocolConfig(sources={"Wiki": "facts"})
    )
    assert reading.plan is None
    assert reading.problems == ("line 2: source 'News' is not Wiki",)
