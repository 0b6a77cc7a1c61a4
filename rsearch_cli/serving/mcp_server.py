"""The agent and its sources as tools of a Model Context Protocol server, by the official SDK."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

from rsearch_cli import __version__
from rsearch_cli.errors import QuestionTooLong, RsearchError
from rsearch_cli.protocol.characters import flatten
from rsearch_cli.rollout.events import Event, Finished, PlanWritten, ResultArrived
from rsearch_cli.services.keys import hide_secrets
from rsearch_cli.serving.api_errors import as_api_error
from rsearch_cli.serving.discretion import SEARCH_FAILED, log_failure
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.mcp_results import (
    ANSWER_SCHEMA,
    PASSAGES_SCHEMA,
    answer_text,
    bounded,
    describe_result,
    passages_as_json,
    passages_text,
)
from rsearch_cli.serving.requests import AskRequest, QueueFull
from rsearch_cli.terminal import on_one_line
from rsearch_cli.types import PlanNode, SearchPlan
from rsearch_cli.workflows.ask import Style

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

logger = logging.getLogger(__name__)

MOST_SEARCHES = 32
"""Calls of the tool `search` that may run at the same time."""

_MOST_CHARS = 20_000
_MOST_QUERY_CHARS = 1_000
_SESSIONS = 256
_IDLE_SECONDS = 600.0

Report = Callable[[str], Awaitable[None]]
"""Sends a progress notification, if the client has asked for them."""


class ToolError(RsearchError):
    """A call that cannot be answered, in words for the client."""


def build_mcp(opened: Future[ServingEngine], *, explain_all: bool = False) -> Server[Any]:
    """Return an MCP server with the tools `search_agent` and `search`.

    A request that the client cancels, or whose connection ends, stops: its question leaves the
    engine, and its search is cancelled.

    Args:
        opened: The engine, as soon as it is open; until then the tools wait for it. The caller
            closes the engine after the server.
        explain_all: Whether clients may see messages about the services that the agent uses, with
            their addresses.
    """
    from mcp.server import Server

    tools = _Tools(opened, explain_all)
    return Server(
        "rsearch",
        version=__version__,
        instructions="search_agent answers a question and cites the passages it found; search "
        "returns passages of one source.",
        on_list_tools=tools.list,
        on_call_tool=tools.call,
    )


def open_mcp_endpoint(engine: ServingEngine, max_body: int) -> StreamableHTTPSessionManager:
    """Return the streamable HTTP transport of an MCP server.

    Its `handle_request` is an ASGI application, which works inside `async with manager.run()`.
    Keys, Host and Origin are checked by the application that mounts it.

    Args:
        engine: Answers the questions.
        max_body: Most bytes of a request.
    """
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    opened: Future[ServingEngine] = Future()
    opened.set_result(engine)
    return StreamableHTTPSessionManager(
        build_mcp(opened),
        max_request_body_size=max_body,
        max_sessions=_SESSIONS,
        session_idle_timeout=_IDLE_SECONDS,
    )


class _Tools:
    """The handlers of `tools/list` and `tools/call`."""

    def __init__(self, opened: Future[ServingEngine], explain_all: bool) -> None:
        self._opened = opened
        self._explains_all = explain_all
        self._searching = 0

    async def _open(self) -> ServingEngine:
        """Return the engine; a request that is cancelled meanwhile does not cancel the others."""
        return await asyncio.shield(asyncio.wrap_future(self._opened))

    async def list(self, context: Any, params: Any) -> Any:
        """Return the tools and their schemas."""
        from mcp.types import ListToolsResult, Tool, ToolAnnotations

        sources = (await self._open()).agent.recipe.protocol.sources
        places = "; ".join(f"{name}: {flatten(text)}" for name, text in sources.items())
        reads = ToolAnnotations(read_only_hint=True, open_world_hint=True)
        agent = Tool(
            name="search_agent",
            title="Search agent",
            description="Answers a question by searching: writes a search plan, runs it and "
            "answers from the passages it finds, which it cites. Each question stands alone. "
            f"It searches {places}.",
            input_schema=_schema(
                ["question"],
                question=_text_schema("A complete question, in natural language.", _MOST_CHARS),
                style={
                    "type": "string",
                    "enum": list(get_args(Style)),
                    "description": "paragraph adds a long answer whose sentences cite passages.",
                },
            ),
            output_schema=ANSWER_SCHEMA,
            annotations=reads,
        )
        search = Tool(
            name="search",
            title="Search",
            description="Returns the passages that one source finds for a query, best first. "
            f"Sources: {places}.",
            input_schema=_schema(
                ["query", "source"],
                query=_text_schema("A few words to search for.", _MOST_QUERY_CHARS),
                source={"type": "string", "enum": list(sources), "description": "Where to search."},
            ),
            output_schema=PASSAGES_SCHEMA,
            annotations=reads,
        )
        return ListToolsResult(tools=[agent, search])

    async def call(self, context: Any, params: Any) -> Any:
        """Run a tool; what goes wrong is a tool error of one line."""
        from mcp.shared.exceptions import MCPError
        from mcp.types import INVALID_PARAMS, CallToolResult, TextContent

        run = {"search_agent": self._ask, "search": self._search}.get(params.name)
        if run is None:
            raise MCPError(INVALID_PARAMS, f"unknown tool {on_one_line(params.name, 100)}")
        steps = 0

        async def report(line: str) -> None:
            nonlocal steps
            steps += 1
            await context.session.report_progress(steps, message=on_one_line(line))

        try:
            text, structured = await run(params.arguments or {}, report)
        except Exception as error:
            line = on_one_line(self._explain(error))
            return CallToolResult(content=[TextContent(type="text", text=line)], is_error=True)
        content = [TextContent(type="text", text=text)]
        return CallToolResult(content=content, structured_content=structured)

    def _explain(self, error: Exception) -> str:
        """Describe an error to the client; anything else is only logged."""
        own = isinstance(error, ToolError | QueueFull | QuestionTooLong)
        if own or (self._explains_all and isinstance(error, RsearchError)):
            return hide_secrets(str(error))
        return as_api_error(error).message

    async def _ask(self, arguments: dict[str, Any], report: Report) -> tuple[str, Any]:
        """Answer a question, with a report of the plan, of each result and of the answer."""
        question = _read_text(arguments, "question", _MOST_CHARS)
        style: Style | None = arguments.get("style")
        if style not in (None, *get_args(Style)):
            given = on_one_line(repr(style), 100)
            raise ToolError(f"style must be one of {', '.join(get_args(Style))}, not {given}")
        engine = await self._open()
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def put(line: str | None) -> None:
            with suppress(RuntimeError):  # the server has ended, and its loop with it
                loop.call_soon_threadsafe(lines.put_nowait, line)

        def on_event(event: Event) -> None:
            if line := _describe(event):
                put(line)

        ticket = engine.submit(AskRequest(question, style=style), on_event)
        ticket.future.add_done_callback(lambda _: put(None))
        try:
            while (line := await lines.get()) is not None:
                await report(line)
            answer = ticket.future.result()
        finally:
            ticket.cancel()
        return answer_text(answer), bounded(answer.as_json())

    async def _search(self, arguments: dict[str, Any], report: Report) -> tuple[str, Any]:
        """Search one source.

        Raises:
            ToolError: The source does not exist, the search failed, or too many are running.
        """
        query = _read_text(arguments, "query", _MOST_QUERY_CHARS)
        agent = (await self._open()).agent
        sources = list(agent.recipe.search.sources)
        source = arguments.get("source")
        if source not in sources:
            given = on_one_line(repr(source), 100)
            raise ToolError(f"source must be one of {', '.join(sources)}, not {given}")
        if self._searching >= MOST_SEARCHES:
            raise ToolError(f"{self._searching} searches are running already; try again later")
        self._searching += 1
        try:
            plan = SearchPlan((PlanNode("A", flatten(query), source),))
            ((result,),) = await asyncio.wrap_future(agent.executor.submit([plan]))
        finally:
            self._searching -= 1
        if result.error is not None:
            if self._explains_all:
                raise ToolError(f"the search failed: {result.error}")
            log_failure(f"a search of {source} failed: {result.error}")
            raise ToolError(SEARCH_FAILED)
        await report(describe_result(result))
        return passages_text(result), bounded(passages_as_json(result))


def _describe(event: Event) -> str | None:
    """Describe an event in one line; None for those that are not reported."""
    if isinstance(event, PlanWritten):
        if event.plan is None:
            return f"plan not valid: {flatten(event.problems[0])}"
        nodes = (f"{n.label}: {n.query} ({n.source})" for n in event.plan.nodes)
        return f"plan: {'; '.join(nodes)}"
    if isinstance(event, ResultArrived):
        return describe_result(event.result)
    if isinstance(event, Finished):
        answer = event.answer.answer
        return "no answer" if answer is None else f"answer: {flatten(answer)}"
    return None


def _schema(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    """Return the schema of a tool's arguments."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _text_schema(description: str, most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": most, "description": description}


def _read_text(arguments: dict[str, Any], name: str, most: int) -> str:
    """Return a text argument.

    Raises:
        ToolError: It is missing, not a string, empty or too long.
    """
    value = arguments.get(name)
    if not isinstance(value, str):
        raise ToolError(f"{name} must be a string, not {on_one_line(repr(value), 100)}")
    if not flatten(value):
        raise ToolError(f"{name} is empty")
    if len(value) > most:
        raise ToolError(f"{name} has {len(value):,} characters; at most {most:,} are allowed")
    return value
