"""`POST /v1/chat/completions`: from a request to the engine, and its events back to the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Self

from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import AnswerText, Asked, Event, Finished, OnEvent, Thinking
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.serving.api_errors import ApiError, as_api_error, shutting_down
from rsearch_cli.serving.chat_format import ChatWriter, ChunkWriter
from rsearch_cli.serving.chat_request import ChatRequest, read_chat_request
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.guard import Message, Receive, Scope, Send
from rsearch_cli.serving.metrics import ServerMetrics
from rsearch_cli.serving.request_body import ClientGone, read_request_body
from rsearch_cli.serving.requests import AskRequest, QueueFull, ShuttingDown, Ticket

HOLD_SECONDS = 1.0
"""How long the head of a stream waits for text, so that an early failure has its own status."""

KEEP_ALIVE_SECONDS = 15.0
"""A stream without news sends a comment this often, so that proxies keep it open."""

SEND_SECONDS = 60.0
"""A client that reads nothing for this long has hung up."""

_LONGEST_RETRY = 30.0
# Tokens of text have about four characters.
_CHARS_PER_TOKEN = 16
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # nginx collects a response before it sends it, unless told otherwise.
    (b"x-accel-buffering", b"no"),
]
_CONTRADICTED = "the policy's server broke off its answer and wrote another one; ask again"


class ChatEndpoint:
    """The ASGI app of the route.

    Args:
        engine: Answers.
        model: The name of the model that is served.
        metrics: Records how long clients wait.
    """

    def __init__(self, engine: ServingEngine, model: str, metrics: ServerMetrics) -> None:
        self._engine = engine
        self._model = model
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that hangs up frees its place."""
        arrived = time.perf_counter()
        with suppress(ClientGone):
            request = read_chat_request(await read_body(scope, receive), self._model)
            async with _Progress(partial(self._submit, request), request.stream) as progress:
                progress.watch(receive)
                if request.stream:
                    await self._stream(request, progress, send, arrived)
                else:
                    answer = await progress.answer()
                    await send_json(send, ChatWriter(self._model).whole(answer))
            if progress.finished:
                self._metrics.observe_answer(time.perf_counter() - arrived)

    def _submit(self, request: ChatRequest, on_event: OnEvent | None) -> Ticket:
        most = _CHARS_PER_TOKEN * self._engine.agent.recipe.policy.max_seq_length
        if len(request.question) > most:
            # Tokenising megabytes would hold up everybody else.
            message = (
                f"the question has {len(request.question):,} characters, and {most:,} are read"
            )
            raise ApiError(400, message, "context_length_exceeded", param="messages")
        follow_up = request.follow_up
        if follow_up is None:
            follow_up = self._engine.agent.recipe.dialogue.follow_up
        asked = AskRequest(
            question=request.question,
            history=request.history if follow_up else (),
            temperature=request.temperature,
            style=request.style,
            max_tokens=request.max_tokens,
        )
        try:
            return self._engine.submit(asked, on_event)
        except ShuttingDown as error:
            raise shutting_down() from error
        except QueueFull as error:
            done = self._engine.counters
            mean = done.seconds / max(1, done.requests["answered"])
            seconds = min(_LONGEST_RETRY, mean)
            raise ApiError(429, str(error), "server_busy", retry_after=seconds) from error

    async def _stream(
        self, request: ChatRequest, progress: _Progress, send: Send, arrived: float
    ) -> None:
        """Send server-sent events: one chunk for every event, and the end that OpenAI's has."""
        first = await progress.hold(HOLD_SECONDS)
        writer = ChatWriter(self._model)
        events = ChunkWriter(writer)
        await _send(
            send, {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
        )
        await _send_data(send, writer.chunk({"role": "assistant", "content": ""}))
        try:
            while True:
                event = first.pop(0) if first else await progress.next(KEEP_ALIVE_SECONDS)
                if event is None:
                    await _send_text(send, ": waiting\n\n")
                    continue
                self._observe(progress, event, arrived)
                await _send_data(send, events.write(event))
                if isinstance(event, Finished):
                    break
            if events.contradicted:
                raise ApiError(502, _CONTRADICTED, "answer_restarted")
            if request.include_usage:
                await _send_data(send, writer.usage_chunk(event.answer))
            await _send_text(send, "data: [DONE]\n\n")
        except ClientGone:
            raise
        except Exception as error:
            await _send_data(send, as_api_error(error).as_json())
        await _send(send, {"type": "http.response.body", "body": b""})

    def _observe(self, progress: _Progress, event: Event, arrived: float) -> None:
        if not progress.has_text and isinstance(event, Thinking | AnswerText):
            progress.has_text = True
            self._metrics.observe_first_token(time.perf_counter() - arrived)


class _Progress:
    """What becomes of one request; leaving the block gives the request up.

    Args:
        submit: Submits it, with what is called with its events.
        follow: Whether its events are wanted.

    Attributes:
        has_text: The model has written something.
        finished: The question was answered.
    """

    def __init__(self, submit: Callable[[OnEvent | None], Ticket], follow: bool) -> None:
        self.has_text = False
        self._submit = submit
        self._follow = follow
        self.finished = self._hung_up = False
        self._inbox: asyncio.Queue[Event | Future[AgentAnswer]] = asyncio.Queue()
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def post(item: Event | Future[AgentAnswer]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._inbox.put_nowait, item)

        self._ticket = self._submit(post if self._follow else None)
        self._ticket.future.add_done_callback(post)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.finished:
            self._ticket.cancel()

    def watch(self, receive: Receive) -> None:
        """Give the request up as soon as the client hangs up."""
        self._watcher = asyncio.create_task(self._wait_for_hang_up(receive))

    async def next(self, seconds: float) -> Event | None:
        """Return the next event, or None if nothing happens in this time; the last is `Finished`.

        Raises:
            ClientGone: The client hung up.
            Exception: What the request failed with.
        """
        while True:
            try:
                async with asyncio.timeout(seconds):
                    item = await self._inbox.get()
            except TimeoutError:
                return None
            if not isinstance(item, Future):
                self.finished = isinstance(item, Finished)
                return item
            self._read(item)

    async def answer(self) -> AgentAnswer:
        """Return the answer of a request whose events are not wanted.

        Raises:
            ClientGone: The client hung up.
            Exception: What the request failed with.
        """
        while True:
            item = await self._inbox.get()
            if isinstance(item, Future):
                answer = self._read(item)
                self.finished = True
                return answer

    def _read(self, future: Future[AgentAnswer]) -> AgentAnswer:
        if self._hung_up:
            raise ClientGone
        if future.cancelled():  # by the engine, as it was closed
            raise shutting_down()
        return future.result()

    async def hold(self, seconds: float) -> list[Event]:
        """Return the first events, up to the first that shows that the request can be answered."""
        events: list[Event] = []
        while not events or isinstance(events[-1], Asked):
            event = await self.next(seconds)
            if event is None:
                break
            events.append(event)
        return events

    async def _wait_for_hang_up(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._hung_up = True
        self._ticket.cancel()


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Read the body of a request that must be JSON.

    Raises:
        ApiError: It is of another type, too large, or takes too long.
        ClientGone: The client hung up.
    """
    kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(415, "send the header Content-Type: application/json", "unsupported_type")
    return await read_request_body(scope, receive)


async def send_json(send: Send, value: Any, status: int = 200) -> None:
    """Send a whole response; the text is ASCII, which can hold any text, lone surrogates too."""
    body = dump_json(value, ensure_ascii=True).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await _send(send, {"type": "http.response.start", "status": status, "headers": headers})
    await _send(send, {"type": "http.response.body", "body": body})


async def _send_data(send: Send, value: Any) -> None:
    await _send_text(send, f"data: {dump_json(value, ensure_ascii=True)}\n\n")


async def _send_text(send: Send, text: str) -> None:
    await _send(send, {"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _send(send: Send, message: Message) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send(message)
    except TimeoutError:
        raise ClientGone from None
