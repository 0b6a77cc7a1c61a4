from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsearch_cli.protocol.transcript import (
    ANSWER_CLOSE,
    CHECKS,
    SEARCH_CLOSE,
    answer_text,
    last_plan_text,
    read_transcript,
)
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import Segment

RULES = ProtocolConfig()
THINK = "<think> find the author </think>\n"
SEARCH = "<search>\nNodes:\nA: Emma author (General)\nEdges:\n</search>"
RESULT = "\n<result>\nA: Emma: A novel by Jane Austen.\n</result>\n"
ANSWER = "<answer> Jane Austen </answer>"


def model(text: str) -> Segment:
    return Segment(text, (), "model")


def system(text: str) -> Segment:
    return Segment(text, (), "system")


def broken(*segments: Segment, opening: str = "") -> set[str]:
    """Names of the checks that a transcript does not keep."""
    checks = read_transcript(opening, segments, RULES).checks
    assert list(checks) == list(CHECKS)
    return {name for name, kept in checks.items() if not kept}


def test_one_round():
    reading = read_transcript(
        "", [model(THINK + SEARCH), system(RESULT), model(ANSWER), system("")], RULES
    )
    assert reading.thoughts == ("find the author",)
    assert reading.plan_texts == ("\nNodes:\nA: Emma author (General)\nEdges:\n",)
    assert reading.answer == "Jane Austen"
    assert reading.format_valid
    assert reading.format_score == 1.0


def test_several_rounds_with_and_without_a_further_thought():
    segments = [
        model(THINK + SEARCH),
        system(RESULT),
        model("<think> not enough </think>" + SEARCH.replace("author", "editor")),
        system(RESULT),
        model(SEARCH),
        system(RESULT),
        model("\n<think> now I know </think>\n" + ANSWER + "\n"),
    ]
    reading = read_transcript("", segments, RULES)
    assert reading.format_valid, dict(reading.checks)
    assert reading.thoughts == ("find the author", "not enough", "now I know")
    assert [text.split()[2] for text in reading.plan_texts] == ["Emma"] * 3
    assert "editor" in reading.plan_texts[1]


def test_what_the_template_opened_counts_as_written():
    segments = [model(" find it </think>" + SEARCH), system(RESULT), model(ANSWER)]
    assert broken(*segments, opening="<think>\n") == set()
    assert read_transcript("<think>\n", segments, RULES).thoughts == ("find it",)
    assert broken(*segments) == {"think", "closed", "order", "no_stray_text"}


def test_the_older_result_tag_is_read_too():
    assert broken(model(THINK + SEARCH), system("\n<r>\nA: x\n</r>\n"), model(ANSWER)) == set()
    older = ProtocolConfig(result_tag="r")
    segments = [model(THINK + SEARCH), system("\n<r>\nA: x\n</r>\n"), model(ANSWER)]
    assert read_transcript("", segments, older).format_valid


RES = system(RESULT)
DEVIATIONS = {
    "no thought": ([model(SEARCH), RES, model(ANSWER)], {"think", "order"}),
    "empty thought": ([model("<think> \n</think>" + SEARCH), RES, model(ANSWER)], {"think"}),
    "thought unclosed": (
        [model("<think> x " + SEARCH), RES, model(ANSWER)],
        {"think", "order", "closed"},
    ),
    "no search": ([model(THINK + ANSWER)], {"search", "order"}),
    "search without result": ([model(THINK + SEARCH + ANSWER)], {"order"}),
    "search beyond the last turn": (
        [model(THINK + SEARCH), RES, model(SEARCH + ANSWER)],
        {"order"},
    ),
    "search after the answer": (
        [model(THINK + SEARCH), RES, model(ANSWER + SEARCH), RES],
        {"answer", "order"},
    ),
    "answer first": ([model(ANSWER + THINK + SEARCH), RES], {"answer", "order"}),
    "empty answer": ([model(THINK + SEARCH), RES, model("<answer> </answer>")], {"answer"}),
    "two answers": ([model(THINK + SEARCH), RES, model(ANSWER * 2)], {"answer", "order"}),
    "text after the answer": (
        [model(THINK + SEARCH), RES, model(ANSWER + " I am sure.")],
        {"answer", "no_stray_text"},
    ),
    "text before the thought": (
        [model("Sure! " + THINK + SEARCH), RES, model(ANSWER)],
        {"no_stray_text"},
    ),
    "text between result and answer": (
        [model(THINK + SEARCH), RES, model("So: " + ANSWER)],
        {"no_stray_text"},
    ),
    "search inside the thought": (
        [model("<think> x " + SEARCH), RES, model("</think>" + ANSWER)],
        {"think", "order", "closed"},
    ),
    "answer inside an answer": (
        [model(THINK + SEARCH), RES, model("<answer>" + ANSWER + "</answer>")],
        {"answer", "closed"},
    ),
    "closed twice": (
        [model(THINK + SEARCH), RES, model(ANSWER + "</answer>")],
        {"answer", "closed"},
    ),
    "closed by another tag": (
        [model("<think> x </search>" + THINK + SEARCH), RES, model(ANSWER)],
        {"closed"},
    ),
    "result by the model": (
        [model(THINK + SEARCH + RESULT + ANSWER)],
        {"order", "results_by_system"},
    ),
    "older result by the model": (
        [model(THINK + "<r> x </r>" + SEARCH), RES, model(ANSWER)],
        {"order", "results_by_system"},
    ),
    "result tag by the model, unclosed": (
        [model(THINK + SEARCH), RES, model("<result>" + ANSWER)],
        {"order", "closed", "results_by_system"},
    ),
    "tags in capitals": (
        [model(THINK.replace("think", "Think") + SEARCH), RES, model(ANSWER)],
        {"exact_tags"},
    ),
    "blanks in a tag": (
        [model(THINK + SEARCH), RES, model("< answer > Jane Austen </ answer>")],
        {"exact_tags"},
    ),
    "inexact tag in no block": (
        [model("</THINK>" + THINK + SEARCH), RES, model(ANSWER)],
        {"closed", "exact_tags"},
    ),
}


@pytest.mark.parametrize(("segments", "names"), DEVIATIONS.values(), ids=DEVIATIONS.keys())
def test_a_deviation_breaks_its_own_rules_and_no_others(segments, names):
    assert broken(*segments) == names
    reading = read_transcript("", segments, RULES)
    assert not reading.format_valid
    assert reading.format_score == pytest.approx(1 - len(names) / len(CHECKS))


def test_every_rule_is_broken_by_some_deviation():
    assert set().union(*(names for _, names in DEVIATIONS.values())) == set(CHECKS)


@pytest.mark.parametrize("text", ["", "Jane Austen.", "search think answer", "<b>Jane</b>"])
def test_text_without_tags_earns_nothing(text):
    assert read_transcript("", [model(text)], RULES).format_score == 0.0
    assert read_transcript("", [], RULES).format_score == 0.0


def test_a_truncated_transcript_earns_what_is_there():
    segments = [model(THINK + SEARCH), RES, model("<answer> Jane Aus")]
    reading = read_transcript("", segments, RULES)
    assert reading.answer is None
    assert {name for name, kept in reading.checks.items() if kept} == {"think", "search"}


def test_result_text_is_never_read_as_the_models():
    inserted = system(f"\n<result>\n{ANSWER}{SEARCH}{THINK}</result>\n")
    reading = read_transcript("", [model(THINK + SEARCH), inserted, model("<answer>Bath")], RULES)
    assert reading.answer is None
    assert len(reading.plan_texts) == len(reading.thoughts) == 1


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        (THINK + "<search>A</search>", "A"),
        ("<search>A</search> <search>B</search>", "B"),
        ("<search>A<search>B</search>", "B"),
        ("<search>A</search><search>B", "A"),
        ("never write </search> yet", None),
        ("<think> x </search>", None),
        ("<Search>A</ search>", "A"),
        ("", None),
    ],
)
def test_last_plan_text(text, plan):
    assert last_plan_text(text) == plan


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> 42 </answer>", "42"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1</answer><answer> </answer>", "1"),
        ("<answer><answer>2</answer>", "2"),
        ("<answer>\n4 < 5\n</answer>", "4 < 5"),
        ("<answer>42", None),
        ("42</answer>", None),
        ("<answer></answer>", None),
        ("<ANSWER>42</ANSWER>", "42"),
    ],
)
def test_answer_text(text, answer):
    assert answer_text(text) == answer


def test_generation_stops_where_a_block_ends():
    assert last_plan_text("<search>A" + SEARCH_CLOSE) == "A"
    assert answer_text("<answer>A" + ANSWER_CLOSE) == "A"


TAG_SOUP = st.lists(
    st.sampled_from(
        [
            *["<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "<result>"],
            *["</result>", "<r>", "</ r >", "<THINK>", "<", ">", "</", " ", "\n", "x", "<think"],
        ]
    ),
    max_size=20,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(TAG_SOUP | st.text(), st.booleans()), max_size=6), TAG_SOUP)
def test_any_tag_soup_is_read(parts, opening):
    segments = [model(text) if ours else system(text) for text, ours in parts]
    reading = read_transcript(opening, segments, RULES)
    assert 0.0 <= reading.format_score <= 1.0
    assert reading.format_valid == (reading.format_score == 1.0)
    assert reading.answer != ""
    if reading.format_valid:
        assert reading.answer and reading.plan_texts and reading.thoughts


ADVERSARIAL = {
    "unclosed": "<<<<search" * 10_000,
    "blanks": "<" + " " * 99_999,
    "slashes": "</" * 50_000,
    "open brackets": "<" * 100_000,
    "blocks": "<search>x</search>" * 5_500,
}


@pytest.mark.parametrize("text", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_100_kb_of_junk_takes_no_time(text):
    seconds = []
    for _ in range(3):
        started = time.process_time()
        read_transcript("<think>", [model(text)], RULES)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05
