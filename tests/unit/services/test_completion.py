"""Answers of chat servers, whole and in chunks."""

from __future__ import annotations

import pytest

from rsearch_cli.services.completion import Completion, NoCompletion, ReplyReader, mend


def read(*pieces: dict) -> Completion:
    reader = ReplyReader()
    for piece in pieces:
        reader.add(piece)
    return reader.finish()


def whole(message: dict, finish: object = "stop", **choice: object) -> dict:
    return {"choices": [{"message": message, "finish_reason": finish, **choice}]}


def chunks(*deltas: dict, finish: object = "stop") -> list[dict]:
    parts = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    return [*parts, {"choices": [{"delta": {}, "finish_reason": finish}]}]


THOUGHTS = [
    {"reasoning_content": "a b"},
    {"reasoning": "a b"},
    {"thinking": "a b"},
    {"reasoning": "a b", "reasoning_content": "a b"},  # vLLM, for a while
    {"reasoning": "a b", "reasoning_details": [{"type": "reasoning.text", "text": "a b"}]},
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "a b"}]},
    {"reasoning_details": [{"type": "reasoning.text", "text": "a "}, {"text": "b"}]},
]


@pytest.mark.parametrize("apart", THOUGHTS)
def test_the_thought_is_found_in_every_field_that_servers_have_for_it(apart):
    found = read(whole({"content": "c", **apart}))
    assert (found.thought, found.text, found.finish) == ("a b", "c", "stop")
    found = read(*chunks(apart, {"content": "c"}))
    assert (found.thought, found.text, found.finish) == ("a b", "c", "stop")


@pytest.mark.parametrize(
    ("content", "thought", "text"),
    [
        (None, "", ""),
        ("", "", ""),
        ([], "", ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": " b"}], "", "a b"),
        ([{"type": "output_text", "text": "a b"}], "", "a b"),
        (["a", " b"], "", "a b"),
        ([{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}], "t", "a"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, "a"], "t", "a"),
        ([{"type": "reasoning", "text": "t"}, {"type": "image_url", "image_url": {}}], "t", ""),
        (7, "", ""),
    ],
)
def test_content_is_read_in_every_form(content, thought, text):
    for found in (read(whole({"content": content})), read(*chunks({"content": content}))):
        assert (found.thought, found.text) == (thought, text)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, ""),
        ("stop", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("max_output_tokens", "length"),
        ("eos", "eos"),
        ("END_TURN", "end_turn"),
        (7, ""),
    ],
)
def test_why_a_reply_ended_is_read_in_the_words_of_many_servers(said, meant):
    assert read(whole({"content": "a"}, said)).finish == meant
    assert read(*chunks({"content": "a"}, finish=said)).finish == meant


@pytest.mark.parametrize(
    ("fields", "stop_string"),
    [
        ({}, None),
        ({"stop_reason": "</answer>"}, "</answer>"),
        ({"stop_reason": None}, ""),
        ({"stop_reason": 151645}, ""),
        ({"matched_stop": "</answer>"}, "</answer>"),
        ({"matched_stop": 151645}, ""),
    ],
)
def test_the_stop_string_is_taken_from_who_names_it(fields, stop_string):
    assert read(whole({"content": "a"}, **fields)).stop_string == stop_string


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([{}], ""),
        ([{"choices": []}], ""),
        ([{"choices": None}], ""),
        ([{"choices": [None]}], ""),
        ([{"choices": [{"index": 0}]}], ""),
        ([{"choices": {"message": {"content": "a"}}}], ""),
        ([{"error": {"message": "out of memory"}}], "out of memory"),
        ([{"error": "busy"}], "busy"),
        ([whole({"content": "a"}, "error", error={"message": "upstream"})], "upstream"),
        ([whole({"content": "a"}, "abort")], "abort"),
    ],
)
def test_what_is_no_completion_is_none(pieces, words):
    with pytest.raises(NoCompletion) as problem:
        read(*pieces)
    assert str(problem.value) == words


def test_a_reply_of_the_completions_api_has_its_text_in_the_choice():
    found = read({"choices": [{"text": "a", "finish_reason": "stop", "token_ids": [1, 2]}]})
    assert (found.text, found.token_ids) == ("a", (1, 2))
    found = read({"choices": [{"text": "a", "token_ids": [1]}]}, {"choices": [{"text": "b"}]})
    assert (found.text, found.token_ids) == ("ab", (1,))


@pytest.mark.parametrize("usage", [None, {}, [], {"prompt_tokens": "4"}, {"prompt_tokens": -1}])
def test_what_a_server_does_not_count_is_not_known(usage):
    found = read({**whole({"content": "a"}), "usage": usage})
    assert (found.input_tokens, found.output_tokens) == (None, None)


def test_a_pair_that_chunks_cut_in_two_is_whole_again_and_half_of_one_is_a_mark():
    found = read(*chunks({"content": "a \ud83d"}, {"content": "\ude00"}, {"content": "\ud83d"}))
    assert found.text == "a \U0001f600\ufffd"
    assert read(whole({"content": "\ud83d b"})).text == mend("\ud83d b") == "\ufffd b"


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|eot_id|>\n", "\n</s>", "<end_of_turn>"])
def test_the_end_of_turn_token_that_a_server_leaves_is_no_text(mark):
    assert read(whole({"content": f"<answer> Ann {mark}"})).text == "<answer> Ann"
    assert read(*chunks({"content": "<answer> Ann "}, {"content": mark})).text == "<answer> Ann"
    assert read(whole({"content": f"{mark.strip()} begins"})).text == f"{mark.strip()} begins"


def test_only_the_first_of_several_choices_is_read():
    choices = [{"index": n, "message": {"content": f"c{n}"}} for n in (1, 0, 2)]
    assert read({"choices": choices}).text == "c0"
