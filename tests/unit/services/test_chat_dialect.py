"""What a refusal changes in further requests, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from rsearch_cli.services.chat_dialect import Dialect, Refusal, fold_system

CHAT = [{"role": "system", "content": "rules"}, {"role": "user", "content": "Who?"}]
TURN = {"role": "assistant", "content": "<think> a"}
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 9, "stop": ["</search>"], "top_p": 0.9}


def learn(words: str, param: str = "", messages: Any = CHAT, **options: Any) -> Any:
    """The request that is sent after a refusal; None if it changes nothing."""
    dialect, options = Dialect(), OPTIONS | options
    sent = dialect.put(messages, options)
    return dialect.put(messages, options) if dialect.learn(Refusal(words, param), sent) else None


@pytest.mark.parametrize(
    ("words", "param", "gone"),
    [
        ("Unsupported value: 'temperature' does not support 0 with this model.", "", "temperature"),
        ("`temperature` and `top_p` cannot both be specified", "", "temperature"),
        ("not supported", "stop", "stop"),
        ("Stop sequences are not supported: stop", "", "stop"),
        ("stop_sequences is not supported for this model", "", "stop"),
        ("temperature参数非法，不支持", "", "temperature"),
        ("Sampling parameters are not allowed for reasoning models", "", "temperature"),
        ('[{"type":"extra_forbidden","loc":["body","top_p"],"msg":"Extra inputs"}]', "", "top_p"),
        ("Unrecognized request argument supplied: top_p", "", "top_p"),
    ],
)
def test_a_parameter_that_is_refused_by_name_is_left_out(words, param, gone):
    assert set(OPTIONS) - set(learn(words, param).options) == {gone}


def test_a_server_that_does_not_stream_is_asked_for_whole_replies():
    words = "Streaming is not supported by this deployment."
    assert set(learn(words, stream=True).options) == set(OPTIONS)


def test_the_limit_of_tokens_is_renamed_and_never_left_out():
    dialect = Dialect()
    words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
    assert dialect.learn(Refusal(words), dialect.put(CHAT, OPTIONS))
    sent = dialect.put(CHAT, OPTIONS)
    assert sent.options["max_completion_tokens"] == 9 and "max_tokens" not in sent.options
    assert not dialect.learn(Refusal("unknown: max_completion_tokens"), sent)


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 9. This model supports at most 4.",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8]",
        "max_tokens=600 cannot be greater than max_model_len=512.",
        "max_tokens参数非法：取值范围是[1, 4096]",
        "The maximum temperatures of last year stopped here.",
        "something went wrong",
        "",
    ],
)
def test_what_is_about_a_value_or_about_nothing_changes_nothing(words):
    assert learn(words) is None


def test_a_temperature_that_must_be_positive_is_next_to_greedy():
    sent = learn("Input validation error: `temperature` must be strictly positive")
    assert sent.options["temperature"] == 0.01


@pytest.mark.parametrize(
    "words",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "Developer instruction is not enabled for models/gemma-3",
        "This model does not support system messages.",
        "角色信息不正确",
        "messages: first message must use the 'user' role",
        "Input should be 'user' or 'assistant'",
    ],
)
def test_a_refused_system_role_goes_into_the_first_user_message(words):
    assert learn(words).messages == [{"role": "user", "content": "rules\n\nWho?"}]
    assert learn(words, messages=CHAT[1:]) is None


def test_only_a_server_that_does_not_know_them_is_spared_the_fields_of_vllm():
    foreign = {"continue_final_message": True, "add_generation_prompt": False}
    chat = [*CHAT, TURN]
    known = "continue_final_message is set but the final message does not appear in the chat"
    assert learn(known, messages=chat, **foreign) is None
    unknown = '{"type":"extra_forbidden","loc":["body","continue_final_message"]}'
    assert not set(foreign) & set(learn(unknown, messages=chat, **foreign).options)


def test_a_message_that_must_be_marked_as_a_prefix_is():
    words = "Expected last role User or Tool (or Assistant with prefix True) for serving"
    assert learn(words, messages=[*CHAT, TURN]).messages[-1] == {**TURN, "prefix": True}
    assert learn(words) is None


def test_two_requests_under_way_learn_one_thing_once():
    dialect, refusal = Dialect(), Refusal("not supported", "stop")
    first, second = dialect.put(CHAT, OPTIONS), dialect.put(CHAT, OPTIONS)
    assert dialect.learn(refusal, first) and dialect.learn(refusal, second)
    assert dialect.changes == ["without stop"]


def test_folding_changes_nothing_of_what_was_given():
    assert fold_system([*CHAT, TURN])[1:] == [TURN]
    assert CHAT[1]["content"] == "Who?" and fold_system(CHAT[1:]) == CHAT[1:]
    assert fold_system(CHAT[:1]) == CHAT[:1]
