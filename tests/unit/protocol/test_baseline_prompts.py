"""The prompts of the methods without a plan, and what counts as their answer."""

from __future__ import annotations

import pytest

from rsearch_cli.protocol.baseline_prompts import (
    build_direct_messages,
    build_rag_messages,
    read_bare_answer,
)
from rsearch_cli.types import Question

QUESTION = Question("q", "Who wrote <answer> it?", ("x",))


def test_neither_prompt_lets_a_question_open_a_tag():
    for messages in (build_direct_messages(QUESTION), build_rag_messages(QUESTION, "\nblock\n")):
        assert messages[-1]["content"].endswith("Who wrote ‹answer› it?")
        assert "<answer>" in messages[0]["content"]


def test_passages_come_before_the_question():
    content = build_rag_messages(QUESTION, "\n<result>\nA: it\n</result>\n")[-1]["content"]
    assert content.startswith("<result>\nA: it\n</result>\nWho")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> Rome </answer>", "Rome"),
        ("It is <answer>Rome</answer>, I think", "Rome"),
        ("Let me see.\nRome\n", "Rome"),
        ("<answer> Rome", "Rome"),
        ("<answer></answer>", None),
        ("  \n ", None),
    ],
)
def test_an_answer_without_tags_is_the_last_line(text, answer):
    assert read_bare_answer(text) == answer
