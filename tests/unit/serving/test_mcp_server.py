"""The MCP tools, with the official client in the same process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import anyio
import pytest
from mcp import Client

from rsearch_cli.errors import BudgetExceeded, ServiceFailure
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import Thinking
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.mcp_results import MOST_CHARS, answer_text, bounded, passages_text
from rsearch_cli.serving.mcp_server import build_mcp
from rsearch_cli.types import NodeResult, Passage, PlanNode, SearchRound


@pytest.fixture(scope="module")
def question(questions) -> str:
    return questions[0]


@pytest.fixture
def engine(agent):
    with ServingEngine(agent, max_batch=4, max_waiting=2) as engine:
        yield engine


def as_opened(engine: ServingEngine) -> Future[ServingEngine]:
    opened: Future[ServingEngine] = Future()
    opened.set_result(engine)
    return opened


def with_client(
    engine: ServingEngine, use: Callable[[Client], Awaitable[Any]], explain_all: bool = False
) -> Any:
    async def run() -> Any:
        async with Client(build_mcp(as_opened(engine), explain_all=explain_all)) as client:
            return await use(client)

    return asyncio.run(asyncio.wait_for(run(), 60))


def call(engine: ServingEngine, name: str, **arguments: Any) -> tuple[Any, list[str]]:
    """Call a tool; return its result and the messages of its progress."""
    steps: list[tuple[float, str]] = []

    async def note(step: float, total: float | None, message: str | None) -> None:
        steps.append((step, message or ""))

    result = with_client(engine, lambda c: c.call_tool(name, arguments, progress_callback=note))
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    return result, [message for _, message in steps]


def test_the_tools_name_the_sources_of_the_recipe(engine):
    tools = {t.name: t for t in with_client(engine, lambda client: client.list_tools()).tools}
    assert set(tools) == {"search_agent", "search"}
    source = tools["search"].input_schema["properties"]["source"]
    assert source["enum"] == list(engine.agent.recipe.search.sources)
    for tool in tools.values():
        assert tool.annotations.read_only_hint and tool.output_schema
        assert tool.input_schema["additionalProperties"] is False


def test_an_answer_comes_with_plan_passages_and_citations(agent, engine, question):
    result, steps = call(engine, "search_agent", question=question)
    alone = agent.ask(question).as_json()
    told = result.structured_content
    for name in ("question", "answer", "citations", "searches"):
        assert told[name] == alone[name]
    assert told["plans"][0]["results"][0]["passages"]
    assert not result.is_error
    assert result.content[0].text.startswith(f"{alone['answer']} [1]\n[1] ")
    assert steps[0].startswith("plan: A: ") and steps[-1] == f"answer: {alone['answer']}"
    assert len(steps) == 2 + alone["searches"]


def test_a_source_is_searched_without_the_model(agent, engine, question):
    title = agent.ask(question).passages[0].title
    result, steps = call(engine, "search", query=title.replace(" ", "\n"), source="General")
    told = result.structured_content
    assert (told["query"], told["source"]) == (title, "General")
    assert title in [passage["title"] for passage in told["passages"]]
    assert result.content[0].text.startswith(f"[1] {told['passages'][0]['title']}")
    count = len(told["passages"])
    assert steps == [f"A: {count} passage{'s' * (count > 1)} for {title} (General)"]
    assert engine.counters.requests["answered"] == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("search_agent", {}, "question must be a string, not None"),
        ("search_agent", {"question": " \n"}, "question is empty"),
        ("search_agent", {"question": ["a"]}, "question must be a string, not ['a']"),
        ("search_agent", {"question": "a" * 20_001}, "question has 20,001 characters; at most"),
        ("search_agent", {"question": "why " * 4000}, "its prompt has 8,002 tokens"),
        ("search", {"query": "a", "source": "\x1b[31mWeb"}, "source must be one of General, News"),
        ("search", {"query": "a", "source": None}, "source must be one of General, News"),
        ("search", {"query": "", "source": "General"}, "query is empty"),
        ("search_agent", {"question": "a", "style": "epic"}, "style must be one of short, para"),
    ],
)
def test_wrong_arguments_are_one_line(engine, name, arguments, message):
    result, steps = call(engine, name, **arguments)
    (content,) = result.content
    assert result.is_error and result.structured_content is None and steps == []
    assert message in content.text and "\n" not in content.text and "\x1b" not in content.text


def test_a_failed_search_is_an_error_and_its_reason_is_for_the_log(engine, monkeypatch, caplog):
    def submit(plans):
        future: Future[Any] = Future()
        result = NodeResult(plans[0].nodes[0], error="General: no\nreply after 3 attempts")
        future.set_result([(result,)])
        return future

    monkeypatch.setattr(engine.agent.executor, "submit", submit)
    arguments = {"query": "a", "source": "General"}
    result = with_client(engine, lambda client: client.call_tool("search", arguments))
    assert result.is_error
    assert result.content[0].text == "the search failed; the server's log says why"
    assert caplog.text.count("no\nreply after 3 attempts") == 1
    result = with_client(engine, lambda c: c.call_tool("search", arguments), explain_all=True)
    assert result.content[0].text == "the search failed: General: no reply after 3 attempts"


@pytest.mark.parametrize(
    ("error", "outside", "at_home"),
    [
        (
            BudgetExceeded("the budget of 1 USD is spent"),
            "the server's budget is used up",
            "the budget of 1 USD is spent",
        ),
        (
            ServiceFailure("http://10.0.0.7/v1 did not answer"),
            "a service that the agent needs did not answer",
            "http://10.0.0.7/v1 did not answer",
        ),
        (
            ZeroDivisionError("division by zero"),
            "internal error; the server's log says more",
            "internal error; the server's log says more",
        ),
    ],
)
def test_other_machines_learn_nothing_about_services(engine, monkeypatch, error, outside, at_home):
    def submit(plans):
        future: Future[Any] = Future()
        future.set_exception(error)
        return future

    monkeypatch.setattr(engine.agent.executor, "submit", submit)
    arguments = {"query": "a", "source": "General"}
    for explain_all, message in ((False, outside), (True, at_home)):
        result = with_client(
            engine, lambda client: client.call_tool("search", arguments), explain_all=explain_all
        )
        assert result.is_error and result.content[0].text == message


def test_a_long_answer_is_part_of_the_text(agent, engine, question):
    result, _ = call(engine, "search_agent", question=question, style="paragraph")
    paragraph = result.structured_content["paragraph"]
    assert paragraph["sentences"] or paragraph["note"]
    shown = paragraph["note"] or paragraph["sentences"][0]["text"]
    assert shown in result.content[0].text


def hold(engine: ServingEngine, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let the policy write very slowly, and tell when a request has begun."""
    began = asyncio.Event()
    submit = engine.submit

    def submit_and_hold(request, on_event):
        loop = asyncio.get_running_loop()

        def slowly(event):
            if isinstance(event, Thinking):
                loop.call_soon_threadsafe(began.set)
                time.sleep(0.3)
            on_event(event)

        return submit(request, slowly)

    monkeypatch.setattr(engine, "submit", submit_and_hold)
    return began


def test_a_cancelled_call_leaves_the_engine(engine, question, monkeypatch):
    began = hold(engine, monkeypatch)

    async def use(client: Client) -> None:
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "search_agent", {"question": question})
            await began.wait()
            calls.cancel_scope.cancel()
        while engine.running:
            await anyio.sleep(0.01)

    with_client(engine, use)
    assert engine.counters.requests["cancelled"] == 1
    assert engine.counters.requests["answered"] == 0


def test_a_full_queue_is_an_error_of_the_tool(agent, question, monkeypatch):
    with ServingEngine(agent, max_batch=1, max_waiting=1) as engine:
        began = hold(engine, monkeypatch)

        async def use(client: Client) -> list[Any]:
            results: list[Any] = []

            async def ask() -> None:
                results.append(await client.call_tool("search_agent", {"question": question}))

            async with anyio.create_task_group() as calls:
                calls.start_soon(ask)
                await began.wait()
                calls.start_soon(ask)
                calls.start_soon(ask)
            return results

        results = with_client(engine, use)
        errors = [r.content[0].text for r in results if r.is_error]
        assert len(errors) == 1 and "requests are already waiting, which is the limit" in errors[0]
        assert len({r.structured_content["answer"] for r in results if not r.is_error}) == 1


def test_tools_wait_for_the_agent(engine):
    async def run() -> Any:
        opened: Future[ServingEngine] = Future()
        async with Client(build_mcp(opened)) as client, anyio.create_task_group() as calls:
            given_up = anyio.CancelScope()

            async def list_and_give_up() -> None:
                with given_up:
                    await client.list_tools()

            calls.start_soon(list_and_give_up)
            await anyio.sleep(0.1)
            given_up.cancel()
            await anyio.sleep(0.1)
            assert not opened.cancelled()
            opened.set_result(engine)
            return await client.list_tools()

    assert len(asyncio.run(run()).tools) == 2


def test_results_stay_within_their_limits(agent, question):
    hostile = Passage("\ud800id", "t" * 5000, "\x1b[2Jword " * 10_000, score=float("nan"))
    result = NodeResult(PlanNode("A", "q", "General"), passages=(hostile,) * 50)
    answer = agent.ask(question)
    plan = answer.plan
    found = SearchRound(plan, results=(result,) * 8)
    answer = replace(answer, trajectory=replace(answer.trajectory, rounds=(found,)))
    assert isinstance(answer, AgentAnswer)
    told = json.dumps(bounded(answer.as_json()), allow_nan=False, ensure_ascii=False)
    assert len(told) <= MOST_CHARS
    told.encode()
    for text in (passages_text(result), answer_text(answer)):
        text.encode()
        assert "\x1b" not in text and len(text) < MOST_CHARS


def test_a_failed_search_of_the_agent_is_told(agent, question):
    answer = agent.ask(question)
    failed = NodeResult(PlanNode("A", "q", "News"), error="no reply")
    rounds = (SearchRound(answer.plan, results=(failed,)),)
    answer = replace(answer, trajectory=replace(answer.trajectory, rounds=rounds, answer=None))
    assert answer_text(answer) == (
        "The agent found no answer.\nA: search failed for q (News): no reply"
    )
