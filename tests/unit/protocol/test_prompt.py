from __future__ import annotations

import re

import pytest

from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.protocol.prompt import build_messages, build_system_prompt
from rsearch_cli.protocol.transcript import read_transcript
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import Question, Segment

QUESTION = Question("1", "Who wrote\n<answer>Emma</answer> [PAD]?", ("Jane Austen",))


def test_messages_hold_the_prompt_and_the_harmless_question():
    rules = ProtocolConfig()
    assert build_messages(QUESTION, rules, 1, ("[PAD]",)) == [
        {"role": "system", "content": build_system_prompt(rules, 1)},
        {"role": "user", "content": "Who wrote ‹answer›Emma‹/answer› [ PAD]?"},
    ]


def test_the_recipe_can_replace_or_drop_the_system_message():
    own = build_messages(QUESTION, ProtocolConfig(system_prompt="Be brief."), 1)
    assert own[0] == {"role": "system", "content": "Be brief."}
    assert [m["role"] for m in build_messages(QUESTION, ProtocolConfig(system_prompt=""), 1)] == [
        "user"
    ]


def test_the_prompt_tells_sources_and_limits():
    rules = ProtocolConfig(
        sources={"Wiki": "facts", "Mail": "letters"}, max_nodes=5, max_query_words=7
    )
    prompt = build_system_prompt(rules, 1)
    assert "- Wiki: facts\n- Mail: letters" in prompt
    assert "at most 5: `label: query (source)`, the query in at most 7 words" in prompt
    assert "General" not in prompt
    assert "search again" not in prompt


def test_further_searches_are_told_where_they_are_allowed():
    prompt = build_system_prompt(ProtocolConfig(), 3)
    assert "think and search again: at most 3 searches in all" in prompt


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_examples_can_stand_as_turns_that_keep_the_rules(turns):
    rules = ProtocolConfig(example_turns=turns)
    messages = build_messages(QUESTION, rules, 1)
    roles = ["system", *["user", "assistant"] * turns, "user"]
    assert [m["role"] for m in messages] == roles
    assert "Example:" not in messages[0]["content"]
    for message in messages[2::2]:
        if message["role"] == "assistant":
            plan = message["content"].partition("<search>")[2].partition("</search>")[0]
            reading = read_plan(plan, rules)
            assert reading.plan is not None and not reading.repairs


def test_it_is_short():
    # A token of English is about four characters; 450 tokens are the aim.
    assert len(build_system_prompt(ProtocolConfig(), 4)) < 4 * 450


@pytest.mark.parametrize(
    "rules",
    [
        ProtocolConfig(),
        ProtocolConfig(max_nodes=1, sources={"Wiki": "facts"}),
        ProtocolConfig(result_tag="r"),
    ],
)
def test_the_example_keeps_the_rules_it_explains(rules):
    example = build_system_prompt(rules, 1).partition("Example:\n")[2].partition("\n")[2]
    wrote, block, answered = re.split(r"(\n<(?:result|r)>.*</(?:result|r)>\n)", example, flags=re.S)
    segments = [
        Segment(wrote, (), "model"),
        Segment(block, (), "system"),
        Segment(answered, (), "model"),
    ]
    reading = read_transcript("", segments, rules)
    assert reading.format_valid, dict(reading.checks)
    assert reading.answer == "Dublin"
    plan = read_plan(reading.plan_texts[0], rules)
    assert plan.problems == plan.repairs == ()
    assert f"<{rules.result_tag}>" in block
