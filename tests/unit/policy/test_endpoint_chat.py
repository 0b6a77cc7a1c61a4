"""Replies of chat servers, read as the text that the model wrote."""

from __future__ import annotations

import pytest

from rsearch_cli.policy.endpoint_chat import (
    assemble,
    cut_behind,
    drop_echo,
    find_stop,
    is_undecided,
)

STOPS = ["</search>", "</answer>"]


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
def test_a_reply_is_cut_behind_its_tag(text, finish, stop_string, read, stop):
    close = "</search>" if stop == "tag" else ""
    assert find_stop(text, STOPS, finish, stop_string) == (read or text + close, stop)


def test_stop_strings_inside_a_thought_that_was_sent_apart_end_nothing():
    written = assemble("I write <search> … </search> next.", "<search> a ", opened=False)
    text, stop = find_stop(written.text, STOPS, "stop", None, written.thought)
    assert text == written.text + "</search>" and stop == "tag"
    assert cut_behind(written.text, STOPS, written.thought) is None


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
    assert assemble(thought, text, opened=opened).text == read


def test_what_a_template_had_opened_is_marked():
    assert assemble("", "a </think>", opened=False).implied == len("<think>")
    assert assemble("a", "b", opened=False).implied == 0


def test_a_thought_is_not_shown_while_it_may_be_a_block():
    assert all(is_undecided(part, "") for part in ("<", "<ans", "\n<answer"))
    assert not any(is_undecided(part, "") for part in ("a", "a <", "<answer>"))
    assert is_undecided("a", "</thi") and not is_undecided("<ans", "text")


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
    assert drop_echo(text, sent) == read
