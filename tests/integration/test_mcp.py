"""The official MCP client against `rsearch serve`: both transports, both eras of the protocol."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files
from served_agent import SMALL_WORLD, ServedAgent, serve_agent

MODES = ["auto", "legacy"]
KEY = "a-key-for-tests-only"

Use = Callable[[Client], Awaitable[Any]]


def run(server: Any, mode: str, *uses: Use) -> list[Any]:
    """Use clients at the same time, each with a connection of its own."""

    async def use_one(use: Use) -> Any:
        async with Client(server, mode=mode) as client:
            return await use(client)

    async def use_all() -> list[Any]:
        return await asyncio.gather(*map(use_one, uses))

    return asyncio.run(asyncio.wait_for(use_all(), 120))


class Steps(list[str]):
    """The messages of progress notifications, which count from 1."""

    async def __call__(self, step: float, total: float | None, message: str | None) -> None:
        self.append(message or "")
        assert (step, total) == (len(self), None)


def ask(question: str) -> Use:
    async def use(client: Client) -> tuple[Any, Steps]:
        steps = Steps()
        arguments = {"question": question}
        return await client.call_tool("search_agent", arguments, progress_callback=steps), steps

    return use


@pytest.fixture(scope="module")
def questions(quickstart) -> list[str]:
    from rsearch_cli.questions.sets import open_question_set

    world = open_question_set(quickstart.questions, quickstart.seed)
    return [question.text for question in world.load("test", 24)]


# HTTP, with the built-in model.


@pytest.mark.parametrize("mode", MODES)
def test_the_agent_answers_over_http(served_agent, questions, mode):
    ((answer, steps),) = run(f"{served_agent.url}/mcp", mode, ask(questions[0]))
    told = answer.structured_content
    assert not answer.is_error and told["answer"]
    assert answer.content[0].text.startswith(told["answer"])
    results = [r["node"] for plan in told["plans"] for r in plan["results"]]
    assert steps[0].startswith("plan: A: ")
    assert sorted(step[0] for step in steps[1:-1]) == sorted(results)
    assert steps[-1] == f"answer: {told['answer']}"


@pytest.mark.parametrize("mode", MODES)
def test_one_source_is_searched_over_http(served_agent, mode):
    async def use(client: Client) -> Any:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        sources = tools["search"].input_schema["properties"]["source"]["enum"]
        arguments = {"query": "Press", "source": sources[0]}
        found = await client.call_tool("search", arguments)
        wrong = await client.call_tool("search", {**arguments, "source": "Nowhere"})
        with pytest.raises(MCPError, match="unknown tool"):
            await client.call_tool("delete", {})
        return sources, found, wrong

    ((sources, found, wrong),) = run(f"{served_agent.url}/mcp", mode, use)
    assert sources == ["General", "News", "Academy"]
    assert found.structured_content["passages"] and "Press" in found.content[0].text
    assert wrong.is_error and "must be one of General, News, Academy" in wrong.content[0].text


@pytest.mark.parametrize("mode", MODES)
def test_clients_at_the_same_time_get_their_own_answers(served_agent, questions, mode):
    told = run(f"{served_agent.url}/mcp", mode, *map(ask, questions[:4]))
    assert [r.structured_content["question"] for r, _ in told] == questions[:4]
    assert all(steps[-1] == f"answer: {r.structured_content['answer']}" for r, steps in told)


def count_cancelled(served: ServedAgent) -> float:
    return served.metric('rsearch_questions_total{outcome="cancelled"}')


@pytest.mark.parametrize("mode", MODES)
def test_cancelled_calls_leave_the_engine(served_agent, questions, mode):
    async def use(client: Client) -> None:
        begun = anyio.Event()

        async def note(*step: Any) -> None:
            begun.set()

        async with anyio.create_task_group() as calls:
            for question in questions:
                arguments = {"question": question}
                calls.start_soon(client.call_tool, "search_agent", arguments, None, note)
            await begun.wait()
            calls.cancel_scope.cancel()

    before = count_cancelled(served_agent)
    run(f"{served_agent.url}/mcp", mode, use)
    served_agent.wait_until_idle(10)
    assert count_cancelled(served_agent) > before


def test_the_key_and_the_host_are_checked_as_everywhere(served_agent, questions):
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream"}
    url = f"{served_agent.url}/mcp"
    for foreign in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert httpx2.post(url, json=body, headers={**accept, **foreign}).status_code == 403
    large = httpx2.post(url, content=b" " * (2 << 20), headers=accept)
    assert large.status_code == 413

    with serve_agent(environment={"RSEARCH_API_KEY": KEY}) as served:
        url = f"{served.url}/mcp"
        assert httpx2.post(url, json=body, headers=accept).status_code == 401
        authorized = httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
        transport = streamable_http_client(url, http_client=authorized)
        ((answer, _),) = run(transport, "auto", ask(questions[0]))
        assert answer.structured_content["answer"]

        # A client that stays connected does not keep the server from stopping.
        async def stop(client: Client) -> int:
            await client.list_tools()
            return await anyio.to_thread.run_sync(served.stop)

        authorized = httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
        transport = streamable_http_client(url, http_client=authorized)
        assert run(transport, "legacy", stop) == [0]
        assert "Traceback" not in served.stderr


# stdin and stdout, with a scripted model, so that a call can be held.


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(write_as_agent) as server:
        yield server
        server.hold_after = None


@pytest.fixture
def command(server: ChatServer, tmp_path: Path) -> list[str]:
    _, corpus = write_files(tmp_path, 20)
    settings = [*SETTINGS, f"search.sources.General.corpus={corpus}"]
    options = ["--recipe=hotpot-offline", f"--endpoint={server.base_url}"]
    options += [f"--set={setting}" for setting in settings]
    return [sys.executable, "-m", "rsearch_cli", "serve", "--mcp", *options]


@pytest.fixture
def parameters(command: list[str]) -> StdioServerParameters:
    environment = {**os.environ, "OPENAI_API_KEY": API_KEY}
    return StdioServerParameters(command=command[0], args=command[1:], env=environment)


CITY = "What is the number of city 3?"


@pytest.mark.parametrize("mode", MODES)
def test_the_agent_answers_over_stdin_and_stdout(parameters, mode):
    async def use(client: Client) -> tuple[Any, Steps, Any]:
        answer, steps = await ask(CITY)(client)
        found = await client.call_tool("search", {"query": "City 4", "source": "General"})
        return answer, steps, found

    for answer, steps, found in run(parameters, mode, use):
        assert answer.content[0].text == "Nr 51 [1]\n[1] City 3 (3): It has the number Nr 51."
        assert steps == [
            "plan: A: number of city 3 (General)",
            "A: 1 passage for number of city 3 (General)",
            "answer: Nr 51",
        ]
        assert found.content[0].text == "[1] City 4 (4)\nIt has the number Nr 68."


def test_a_cancelled_call_stops_its_work(server, parameters):
    async def use(client: Client) -> list[Any]:
        await client.list_tools()  # the agent is open
        tried = len(server.requests)
        server.hold_after = 3
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "search_agent", {"question": CITY})
            while len(server.requests) == tried:
                await anyio.sleep(0.02)
            calls.cancel_scope.cancel()
        server.hold_after = None
        await anyio.sleep(0.5)
        assert len(server.requests) == tried + 1  # without the turn that would have answered
        return [await ask(CITY)(client)]

    ((answer, _),) = run(parameters, "auto", use)[0]
    assert answer.structured_content["answer"] == "Nr 51"


def test_a_model_that_fails_is_an_error_of_the_call(server, parameters):
    async def use(client: Client) -> Any:
        await client.list_tools()
        server._api_key = "another"
        return await ask(CITY)(client)

    ((answer, steps),) = run(parameters, "auto", use)
    assert answer.is_error and steps == []
    assert "the key in OPENAI_API_KEY" in answer.content[0].text
    assert "\n" not in answer.content[0].text


def exchange(command: list[str], *messages: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENAI_API_KEY": API_KEY}
    text = "".join(f"{message}\n" for message in messages)
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=120, env=environment
    )


def test_nothing_but_the_protocol_is_on_stdout() -> None:
    """With the built-in model, whose libraries print when they are loaded."""
    command = [sys.executable, "-m", "rsearch_cli", "serve", "--mcp", *SMALL_WORLD]
    initialize = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
        '"capabilities":{},"clientInfo":{"name":"a","version":"1"}}}'
    )
    done = exchange(command, initialize, "this is not JSON", "")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith('{"jsonrpc":"2.0","id":1,"result":{')
    assert all(line.startswith('{"jsonrpc":"2.0"') for line in lines)
    assert "serving builtin:nano over MCP on stdin and stdout\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_that_cannot_be_opened_is_one_line(command) -> None:
    done = exchange(
        [*command, "--set=policy.endpoint.service.retries=0", "--endpoint=http://127.0.0.1:9/v1"]
    )
    assert done.returncode == 43 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("rsearch: no connection to the policy")


def test_an_address_has_no_use_with_stdin_and_stdout(command) -> None:
    done = exchange([*command, "--port=9000"])
    assert done.returncode == 2
    assert "MCP clients connect to http://HOST:PORT/mcp" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once(server, command, number, code) -> None:
    environment = {**os.environ, "OPENAI_API_KEY": API_KEY}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        while "over MCP" not in process.stderr.readline():
            pass
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stderr.read().startswith("rsearch: stopped by ")
