"""Contexts as messages for a chat server, and its replies as text; without a server."""

from __future__ import annotations

import pytest

from rsearch_cli.policy.endpoint_chat import (
    count_tokens,
    cut_at_stop,
    find_stop,
    is_ambiguous,
    join_thought,
    strip_echo,
    to_messages,
)
from rsearch_cli.policy.generation import Context, Prompt
from rsearch_cli.types import Segment

STOPS = ["</search>", "</answer>"]
CHAT = ({"role": "system", "content": "rules"}, {"role": "user", "content": "Who?"})
WRITTEN = Segment("<search> a </search>", (), "model", usage=3)
RESULT = Segment("\n<result>\nA: b\n</result>\n", (), "system", usage=5)


def context(*segments: Segment, opening: str = "") -> Context:
    return Context(Prompt(CHAT, opening=opening, added_opening=bool(opening), usage=9), segments)


def test_results_are_a_user_message_of_their_own():
    sent = to_messages(context(WRITTEN, RESULT), same_turn=False)
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
    assert sent[2]["content"] == "<search> a </search>"
    assert sent[3]["content"] == RESULT.text


def test_results_go_into_the_same_turn_where_the_server_can_continue_it():
    sent = to_messages(context(WRITTEN, RESULT, opening="<think>"), same_turn=True)
    assert [m["role"] for m in sent] == ["system", "user", "assistant"]
    assert sent[2]["content"] == "<think><search> a </search>" + RESULT.text


def test_what_the_servers_template_writes_is_left_out_where_it_writes_it_again():
    written = Segment("<think>" + WRITTEN.text, (), "model", 3, template_chars=len("<think>"))
    sent = to_messages(context(written, RESULT), same_turn=True, omit_template=True)
    assert sent[2]["content"] == WRITTEN.text + RESULT.text
    sent = to_messages(context(written, RESULT), same_turn=True)
    assert sent[2]["content"] == "<think>" + WRITTEN.text + RESULT.text


def test_an_opened_thought_is_left_to_the_template_of_the_server():
    sent = to_messages(context(opening="<think>"), same_turn=False)
    assert [m["role"] for m in sent] == ["system", "user"]


def test_what_a_template_opens_itself_is_not_sent():
    prompt = Prompt(CHAT, opening="<think>", usage=9)
    assert len(to_messages(Context(prompt), same_turn=True)) == 2


def test_building_messages_changes_none_of_what_was_given():
    to_messages(context(WRITTEN, RESULT), same_turn=True)
    assert CHAT[-1]["content"] == "Who?" and len(CHAT) == 2


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("abcd", 1), ("abcde", 2), ("é" * 4, 2)])
def test_a_token_is_estimated_at_four_bytes(text, tokens):
    assert count_tokens(text) == tokens


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
        # Servers have other words for an end, or none; Anthropic's field tells the kind of end.
        ("<search> a", "", None, "<search> a</search>", "tag"),
        ("<search> a", "end_turn", None, "<search> a</search>", "tag"),
        ("<search> a", "stop_sequence", "stop_sequence", "<search> a</search>", "tag"),
        # A server that does not know stop strings goes on behind them.
        ("<answer> Rome </answer> and more", "stop", None, "<answer> Rome </answer>", "tag"),
        ("<search> a", "length", None, "<search> a", "length"),
        # What ends for another reason was not ended by a stop string.
        ("<search> a", "content_filter", None, "<search> a", "eos"),
        ("<search> a", "safety", None, "<search> a", "eos"),
        ("", "content_filter", None, "", "eos"),
        # Only the tag that is open at the end was closed there.
        ("<think> a <search> b </think> no.", "stop", None, None, "eos"),
        ("<search> a <think> b", "stop", None, None, "eos"),
    ],
)
def test_a_reply_is_cut_at_stop_its_tag(text, finish, stop_string, read, stop):
    close = "</search>" if stop == "tag" else ""
    assert find_stop(text, STOPS, finish, stop_string) == (read or text + close, stop)


def test_stop_strings_inside_a_thought_that_was_sent_apart_end_nothing():
    written = join_thought("I write <search> … </search> next.", "<search> a ", opened=False)
    text, stop = find_stop(written.text, STOPS, "stop", None, written.thought_chars)
    assert text == written.text + "</search>" and stop == "tag"
    assert cut_at_stop(written.text, STOPS, written.thought_chars) is None


@pytest.mark.parametrize(
    ("thought", "text", "opened", "read"),
    [
        # Sent apart: the tags come back, and nothing else.
        (" a ", "\n<search>", False, "<think> a </think>\n<search>"),
        (" a ", "\n<search>", True, " a </think>\n<search>"),
        ("a", "<search>", False, "<think>a</think><search>"),
        # Some servers leave tags in the thought.
        ("<think>a</think>", "<search>", False, "<think>a</think><search>"),
        # A thought without an end.
        ("a", "", False, "<think>a"),
        ("a", "", True, "a"),
        # A parser that saw no end of a thought took all for one.
        ("<answer> Rome ", "", False, "<answer> Rome "),
        ("\n<search> a ", "", False, "\n<search> a "),
        ("<think> a </think> <search> b", "", False, "<think> a </think> <search> b"),
        (" a </think> <search> b", "", False, "<think> a </think> <search> b"),
        # A thought apart from one in the text: what was hidden is no part of the transcript.
        ("hidden", "<think> a </think><search>", False, "<think> a </think><search>"),
        ("a", " a </think><search>", False, "<think> a </think><search>"),
        # vLLM's parser, when it streams, may stop in the middle of a thought.
        ("<think> a b", "</think>\n<search>", False, "<think> a b</think>\n<search>"),
        (" a b", " c</think>\n<search>", False, "<think> a b c</think>\n<search>"),
        # Nothing apart: the template had opened the thought, or the server repeats the tag.
        ("", " a </think>\n<search>", False, "<think> a </think>\n<search>"),
        ("", " a </think>\n<search>", True, " a </think>\n<search>"),
        ("", "<think> a </think>", True, " a </think>"),
        ("", "\n<think> a </think>", True, " a </think>"),
        ("  ", "<answer> Rome", False, "<answer> Rome"),
        ("", "", False, ""),
    ],
)
def test_thought_and_text_are_put_together(thought, text, opened, read):
    assert join_thought(thought, text, opened=opened).text == read


def test_what_a_template_had_opened_is_marked():
    assert join_thought("", "a </think>", opened=False).template_chars == len("<think>")
    assert join_thought("a", "b", opened=False).template_chars == 0


def test_a_thought_is_not_shown_while_it_may_be_a_block():
    assert all(is_ambiguous(part, "") for part in ("<", "<ans", "\n<answer"))
    assert not any(is_ambiguous(part, "") for part in ("a", "a <", "<answer>"))
    assert is_ambiguous("a", "</thi") and not is_ambiguous("<ans", "text")


@pytest.mark.parametrize(
    ("text", "sent", "read"),
    [
        ("<think> a </think> b", "<think> a </think>", " b"),
        ("a b", "a \n", " b"),
        ("b", "<think> a", "b"),
        ("b", "", "b"),
    ],
)
def test_a_continuation_that_repeats_the_turn_is_read_without_it(text, sent, read):
    assert strip_echo(text, sent) == read
