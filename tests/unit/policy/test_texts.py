"""A policy on a server, without the server: what is sent."""

from __future__ import annotations

import pytest

from rsearch_cli.policy.texts import TextToken, build_chat, count_tokens

CHAT = [{"role": "system", "content": "rules"}, {"role": "user", "content": "Who?"}]


def context(*pieces: TextToken) -> list[int]:
    return [TextToken(messages=CHAT), TextToken(), *pieces]


WRITTEN = TextToken("<search> a </search>", "model")
RESULT = TextToken("\n<result>\nA: b\n</result>\n")


def test_results_are_a_user_message_of_their_own():
    sent = build_chat(context(WRITTEN, TextToken(), RESULT), same_turn=False)
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
    assert sent[2]["content"] == "<search> a </search>"
    assert sent[3]["content"] == RESULT.text


def test_results_go_into_the_same_turn_where_the_server_can_go_on_with_it():
    sent = build_chat(context(TextToken("<think>"), WRITTEN, RESULT), same_turn=True)
    assert [m["role"] for m in sent] == ["system", "user", "assistant"]
    assert sent[2]["content"] == "<think><search> a </search>" + RESULT.text


def test_what_the_servers_template_writes_is_left_out_where_it_writes_it_again():
    implied = TextToken("<think>", "model", implied=True)
    sent = build_chat(context(implied, WRITTEN, RESULT), same_turn=True, leave_implied=True)
    assert sent[2]["content"] == WRITTEN.text + RESULT.text
    sent = build_chat(context(implied, WRITTEN, RESULT), same_turn=True)
    assert sent[2]["content"] == "<think>" + WRITTEN.text + RESULT.text


def test_an_opened_thought_is_left_to_the_template_of_the_server():
    sent = build_chat(context(TextToken("<think>")), same_turn=False)
    assert [m["role"] for m in sent] == ["system", "user"]


def test_building_a_chat_changes_none_of_what_was_given():
    build_chat(context(WRITTEN, RESULT), same_turn=True)
    assert CHAT[-1]["content"] == "Who?" and len(CHAT) == 2


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("abcd", 1), ("abcde", 2), ("é" * 4, 2)])
def test_a_token_is_estimated_at_four_bytes(text, tokens):
    assert count_tokens(text) == tokens
