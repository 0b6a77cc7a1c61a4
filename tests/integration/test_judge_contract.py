"""The local chat server against openai's own models: neither may drift from the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import openai
import openai_chat
import pytest
from faults import Fault, Faults
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai_chat import API_KEY, ChatServer, Said, make_completion
from pydantic import TypeAdapter

from rsearch_cli.reward.judge import AnswerJudge
from rsearch_cli.reward.rubric import Mode
from rsearch_cli.types import Question

QUESTION = Question(id="q", text="What is the capital of Australia?", answers=("Canberra",))


@pytest.mark.parametrize("said", [Said('{"score": 1}'), Said("", finish="length", usage=False)])
def test_an_answer_is_one_by_the_clients_own_model(said: Said) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    answer = make_completion(body, said)
    completion = ChatCompletion.model_validate(answer, strict=True)
    assert completion.model_extra == completion.choices[0].model_extra == {}
    assert completion.choices[0].message.content == said.text
    assert completion.choices[0].finish_reason == said.finish
    assert (completion.usage is not None) is said.usage


@pytest.mark.parametrize("formats", [("json_schema",), ("json_object",), ("text",)])
@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_request_is_one_by_the_clients_own_types(
    make_judge: Callable[..., AnswerJudge],
    chat_server: ChatServer,
    mode: Mode,
    formats: tuple[str, ...],
) -> None:
    chat_server.formats = formats
    judge = make_judge(f"reward.judge.mode={mode}")
    assert judge.score_batch([(QUESTION, "Sydney")]) == [0.0]
    body = chat_server.requests[-1].body
    # Its messages are an Iterable, which pydantic gives back unread.
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(body)
    known: dict[str, Any] = {}
    for kind in CompletionCreateParamsNonStreaming.__mro__[:-1]:
        known |= getattr(kind, "__annotations__", {})
    assert body.keys() <= known.keys()


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault.BAD_REQUEST, openai.BadRequestError, None),
        (Fault.UNAUTHORIZED, openai.AuthenticationError, "invalid_api_key"),
        (Fault.FORBIDDEN, openai.PermissionDeniedError, None),
        (Fault.NOT_FOUND, openai.NotFoundError, "model_not_found"),
        (Fault.RATE_LIMIT, openai.RateLimitError, "rate_limit_exceeded"),
        (Fault.SERVER_ERROR, openai.InternalServerError, None),
    ],
)
def test_an_error_is_one_by_the_clients_own_classes(
    chat_server: ChatServer, fault: Fault, kind: type[openai.APIStatusError], code: str | None
) -> None:
    chat_server.faults = Faults([fault])
    client = openai.OpenAI(api_key=API_KEY, base_url=chat_server.base_url, max_retries=0)
    with client, pytest.raises(kind) as error:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert (error.value.code, error.value.body["message"]) == (code, f"fault {fault}")


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"model": ""}, "you must provide a model"),
        ({"messages": []}, "you must provide a messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "Invalid value: 'judge'"),
        ({"messages": [{"role": "user"}]}, "Invalid value for 'messages'"),
        ({"tempreature": 0}, "Unrecognized request argument supplied: tempreature"),
        ({"max_tokens": 0}, "below minimum"),
        ({"max_tokens": "9"}, "Invalid type for 'max_tokens'"),
        ({"response_format": {"type": "xml"}}, "'response_format' of type 'xml'"),
        ({"response_format": {"type": "json_schema"}}, "json_schema.name"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "v", "schema": {}},
                }
            },
            "Invalid schema",
        ),
    ],
)
def test_the_server_refuses_what_openai_refuses(change: dict[str, Any], flaw: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    formats = ("json_schema", "json_object", "text")
    assert openai_chat.find_flaw(body, formats) is None
    assert flaw in str(openai_chat.find_flaw(body | change, formats))


def test_it_serves_by_itself(repository: Path, make_judge: Callable[..., AnswerJudge]) -> None:
    script = repository / "tests" / "servers" / "openai_chat.py"
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        address = json.loads(process.stdout.readline())["base_url"]
        judge = make_judge(f"reward.judge.base_url={address}")
        assert judge.score_batch([(QUESTION, "Sydney")]) == [0.0]
        counts, _ = process.communicate(timeout=30)
    assert json.loads(counts)["requests"] == 1
    assert json.loads(counts)["usd"] > 0.0
