"""Real clients of OpenAI's API, unchanged, against a server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import openai
import pytest
from served_agent import ServedAgent

MODEL = "builtin:nano"


@pytest.fixture(scope="module")
def question(served_agent: ServedAgent) -> str:
    """A question that the served world answers."""
    (model,) = served_agent.get("/v1/models")["data"]
    return model["rsearch"]["examples"][0]


@pytest.fixture(scope="module")
def messages(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


@pytest.fixture
def client(served_agent: ServedAgent) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served_agent.url}/v1", api_key="unused")


@pytest.fixture(scope="module")
def answer(served_agent: ServedAgent, messages: list[Any]) -> str:
    """The answer to the question; greedy decoding repeats it."""
    client = openai.OpenAI(base_url=f"{served_agent.url}/v1", api_key="unused")
    found = client.chat.completions.create(model=MODEL, messages=messages)
    assert found.choices[0].message.content
    return found.choices[0].message.content


def test_openai_answers_with_thinking_plan_and_citations(client, messages) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=messages)
    choice, own = reply.choices[0], reply.rsearch
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert choice.message.content == own["answer"]
    assert choice.message.reasoning_content == "\n\n".join(own["thinking"]) != ""
    assert own["plans"][0]["nodes"] and own["plans"][0]["results"][0]["passages"]
    assert own["citations"][0]["holds_answer"]
    assert reply.usage.completion_tokens == own["tokens"]
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + own["tokens"]


def test_openai_streams_events_in_order(client, messages, answer) -> None:
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=messages, stream=True, stream_options=options
        )
    )
    *parts, usage = chunks
    deltas = [chunk.choices[0].delta for chunk in parts]
    events = [chunk.rsearch for chunk in parts if hasattr(chunk, "rsearch")]
    kinds = [event["type"] for event in events]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == answer
    finished = events[-1]
    thinking = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thinking == "\n\n".join(finished["thinking"])
    assert (kinds[0], kinds[-1]) == ("asked", "finished")
    order = [kind for kind, after in zip(kinds, [*kinds[1:], ""], strict=True) if kind != after]
    assert order[:4] == ["asked", "thinking", "plan", "result"]
    assert order[-2:] == ["answer", "finished"]
    assert [chunk.choices[0].finish_reason for chunk in parts][-2:] == [None, "stop"]
    assert usage.choices == [] and usage.usage.completion_tokens == finished["tokens"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_openai_without_usage_ends_with_the_finished_event(client, messages) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_the_streaming_helper_of_openai(client, messages, answer) -> None:
    with client.chat.completions.stream(model=MODEL, messages=messages) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == answer


def test_async_openai_clients_at_once(served_agent, messages, answer) -> None:
    async def ask() -> list[str | None]:
        url = f"{served_agent.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="unused") as client:
            return await asyncio.gather(whole(client), *(stream(client) for _ in range(7)))

    async def whole(client: openai.AsyncOpenAI) -> str | None:
        reply = await client.chat.completions.create(model=MODEL, messages=messages)
        return reply.choices[0].message.content

    async def stream(client: openai.AsyncOpenAI) -> str:
        chunks = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    assert asyncio.run(ask()) == [answer] * 8


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "rsearch"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_text_parts_and_system_messages(client, question, answer) -> None:
    messages = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": [{"type": "text", "text": question}]},
    ]
    reply = client.chat.completions.create(model=MODEL, messages=messages)
    assert reply.choices[0].message.content == answer


def test_an_error_has_the_class_and_the_field_that_openai_gives_it(client, messages) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=messages, n=2)
    assert (caught.value.param, caught.value.code) == ("n", "invalid_value")
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    assert missing.value.code == "model_not_found"


def test_curl(served_agent, question, answer) -> None:
    done = run_curl(served_agent, {"messages": [{"role": "user", "content": question}]})
    assert json.loads(done)["choices"][0]["message"]["content"] == answer


def test_curl_streams(served_agent, question, answer) -> None:
    body = {"messages": [{"role": "user", "content": question}], "stream": True}
    lines = [line for line in run_curl(served_agent, body).split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == answer


def run_curl(served: ServedAgent, body: dict[str, Any]) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return subprocess.run(
        [
            *("curl", "-sS", "--fail-with-body", "--noproxy", "*", "-N"),
            f"{served.url}/v1/chat/completions",
            *("-H", "Content-Type: application/json"),
            *("-d", json.dumps({"model": MODEL, **body})),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


@pytest.mark.parametrize("options", [(), ("--no-stream",)], ids=["streaming", "whole"])
def test_llm(served_agent, question, answer, tmp_path, options) -> None:
    entry = f'- model_id: agent\n  model_name: "{MODEL}"\n  api_base: "{served_agent.url}/v1"\n'
    (tmp_path / "extra-openai-models.yaml").write_text(entry)
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "agent", *options, question],
        capture_output=True,
        text=True,
        timeout=90,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert answer in done.stdout
