from __future__ import annotations

import json
from typing import Any

import pytest

from rsearch_cli.serving.api_errors import ApiError
from rsearch_cli.serving.chat_request import ChatRequest, read_chat_request
from rsearch_cli.types import Turn

ASKED = [{"role": "user", "content": "Who?"}]


def read(**fields: Any) -> ChatRequest:
    body = {"model": "agent", "messages": ASKED, **fields}
    return read_chat_request(json.dumps(body).encode(), "agent")


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def refused(body: bytes | None = None, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        if body is not None:
            read_chat_request(body, "agent")
        else:
            read(**fields)
    return caught.value


def test_a_question_with_defaults() -> None:
    assert read() == ChatRequest("Who?")


def test_supported_fields() -> None:
    request = read(
        temperature=0.7,
        max_tokens=9,
        max_completion_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
        rsearch={"style": "paragraph"},
    )
    assert request == ChatRequest("Who?", (), None, True, True, 0.7, 20, "paragraph")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "stop": None, "tools": [], "response_format": {"type": "text"}},
        {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"]},
        {"top_p": 0.9, "seed": 1, "user": "me", "presence_penalty": 0.5, "metadata": {"a": "b"}},
        {"tool_choice": "auto", "parallel_tool_calls": True, "reasoning_effort": "high"},
        {"top_k": 40, "repetition_penalty": 1.1, "chat_id": "x"},
        {"temperature": None, "max_tokens": None, "stream": None, "rsearch": None},
    ],
)
def test_neutral_and_ignored_fields(fields: dict[str, Any]) -> None:
    assert read(**fields) == ChatRequest("Who?")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", True),
        ("stop", "\n"),
        ("stop", ["a"]),
        ("tools", [{"type": "function"}]),
        ("functions", [{}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"1": 2}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 10**400),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_completion_tokens", True),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("stream_options", []),
        ("messages", None),
        ("messages", []),
        ("messages", "Who?"),
        ("messages", [*ASKED] * 1001),
        ("model", None),
        ("model", 3),
        ("model", "gpt-4o"),
        ("rsearch", []),
    ],
)
def test_a_refused_field_is_named(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.param == field
    assert error.status == (404 if value == "gpt-4o" else 400)
    assert error.message.startswith(field)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Who?", "messages[0]"),
        ({"content": "Who?"}, "messages[0].role"),
        ({"role": ["user"], "content": "Who?"}, "messages[0].role"),
        ({"role": "tool", "content": "Who?"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"role": "user", "content": " \n"}, "messages[0].content"),
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "user", "content": ["Who?"]}, "messages[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages[0].content[0]",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 3}]}, "messages[0].content[0]"),
        ({"role": "assistant", "content": "Me."}, "messages"),
        ({"role": "system", "content": "Be brief."}, "messages"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            "messages[0].tool_calls",
        ),
    ],
)
def test_a_refused_message_is_named(message: Any, param: str) -> None:
    assert refused(messages=[message]).param == param


@pytest.mark.parametrize(
    "own", [{"style": "long"}, {"style": ["short"]}, {"follow_up": 1}, {"styl": "short"}]
)
def test_a_mistake_in_our_own_field_is_named(own: dict[str, Any]) -> None:
    assert (refused(rsearch=own).param or "").startswith("rsearch.")


def test_the_conversation_before_the_question() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Who wrote it?"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "The"}, {"type": "text", "text": "Lantern"}],
        },
        {"role": "assistant", "content": "Ann"},
        {"role": "assistant", "content": "Orr"},
        {"role": "user", "content": "Where was she born?"},
    ]
    request = read(messages=messages)
    assert request.question == "Where was she born?"
    assert request.history == (Turn("Who wrote it?", None), Turn("The\nLantern", "Ann\nOrr"))
    assert request.follow_up is None
    assert read(messages=messages, rsearch={"follow_up": False}).follow_up is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Who?",
        b"[]",
        b"3",
        b"null",
        b'{"messages": ',
        b"\xff\xfe",
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_not_a_json_object(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.code) == (400, "invalid_json")


def test_a_number_beyond_every_float_is_refused() -> None:
    body = (
        b'{"model": "agent", "messages": [{"role": "user", "content": "W"}], "temperature": 1e999}'
    )
    assert refused(body).param == "temperature"


def test_half_of_a_surrogate_pair_becomes_a_replacement_character() -> None:
    body = rb'{"model": "agent", "messages": [{"role": "user", "content": "a\ud83d?"}]}'
    assert read_chat_request(body, "agent").question == "a�?"


def test_what_is_quoted_is_short() -> None:
    assert len(refused(model="x" * 10_000).message) < 200
    assert len(refused(rsearch={"x" * 10_000: 1}).message) < 200
