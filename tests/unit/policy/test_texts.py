"""A policy on a server, without the server: what is sent, and how replies are read."""

from __future__ import annotations

import pytest

from rsearch_cli.policy.texts import (
    TextToken,
    build_chat,
    count_tokens,
    find_stop,
)
from rsearch_cli.recipe.policy import Endpoint

STOPS = ["</search>", "</answer>"]
CHAT = [{"role": "system", "content": "rules"}, {"role": "user", "content": "Who?"}]


@pytest.mark.parametrize(
    ("text", "finish", "stop_string", "read", "stop"),
    [
        # OpenAI leaves the stop string out and does not say which one it was.
        ("<think> x </think>\n<search>\nA", "stop", None, None, "tag"),
        ("<answer> Rome ", "stop", None, "<answer> Rome </answer>", "tag"),
        ("<search> a </search> so <answer> b", "length", None, "<search> a </search>", "tag"),
        ("I cannot tell.", "stop", None, "I cannot tell.", "eos"),
        # vLLM says which, and by null that it was none.
        ("Rome", "stop", "</answer>", "Rome</answer>", "tag"),
        ("<answer> Rome", "stop", "", "<answer> Rome", "eos"),
        # A server that does not know stop strings goes on behind them.
        (
            "<answer> Rome </answer> and more",
            "stop",
            None,
            "<answer> Rome </answer>",
            "tag",
        ),
        ("<search> a", "length", None, "<search> a", "length"),
        ("", "content_filter", None, "", "eos"),
    ],
)
def test_a_reply_is_cut_behind_its_tag(text, finish, stop_string, read, stop):
    expected = text + "</search>" if read is None else read
    assert find_stop(text, STOPS, finish, stop_string) == (expected, stop)


def context(*pieces: TextToken) -> list[int]:
    return [TextToken(messages=CHAT), TextToken(), *pieces]


WRITTEN = TextToken("<search> a </search>", "model")
RESULT = TextToken("\n<result>\nA: b\n</result>\n")


def test_results_are_a_user_message_of_their_own():
    sent = build_chat(context(WRITTEN, TextToken(), RESULT), Endpoint())
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
    assert sent[2]["content"] == "<search> a </search>"
    assert sent[3]["content"] == RESULT.text


def test_results_go_into_the_same_turn_where_the_server_can_go_on_with_it():
    sent = build_chat(context(TextToken("<think>"), WRITTEN, RESULT), Endpoint(results="same_turn"))
    assert [m["role"] for m in sent] == ["system", "user", "assistant"]
    assert sent[2]["content"] == "<think><search> a </search>" + RESULT.text


def test_an_opened_thought_is_left_to_the_template_of_the_server():
    sent = build_chat(context(TextToken("<think>")), Endpoint())
    assert [m["role"] for m in sent] == ["system", "user"]


def test_building_a_chat_changes_none_of_what_was_given():
    build_chat(context(WRITTEN, RESULT), Endpoint(results="same_turn"))
    assert CHAT[-1]["content"] == "Who?" and len(CHAT) == 2


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("abcd", 1), ("abcde", 2), ("é" * 4, 2)])
def test_a_token_is_estimated_at_four_bytes(text, tokens):
    assert count_tokens(text) == tokens
