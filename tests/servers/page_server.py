"""Serves the page with a scripted agent behind it, for errors and hostile content.

It speaks the protocol of `rsearch serve`: chunks of a chat completion with an event each.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvicorn
from scripted_events import QUESTION
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import rsearch_cli

WEB = Path(rsearch_cli.__file__).parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
BLANK = """<!doctype html><html lang="en"><head><title>blank</title><meta charset="utf-8">
<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/base.css"></head>
<body><main></main></body></html>"""


@dataclass
class Reply:
    """What the agent does with a request.

    Attributes:
        events: JSON events in order. A number is a pause in seconds, a `threading.Event` is waited
            for, and an object without
            `type` is sent as it is.
        status: Another than 200 is an error with `message`.
        cut: Close the connection after the events, without the end of the stream.
    """

    events: Sequence[Mapping[str, Any] | float | threading.Event] = ()
    status: int = 200
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class PageServer:
    """The page at `url`, a page without content at `url/blank`.

    Attributes:
        replies: Taken one for each request; the last one stays.
        requests: Bodies and headers of the requests.
        hung_up: Streams that the client left before their end.
        key: What `Authorization` must carry, or None.
        model: Name of the model.
    """

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.requests: list[dict[str, Any]] = []
        self.hung_up = 0
        self.key: str | None = None
        self.model = "scripted"
        app = Starlette(
            routes=[
                Route("/", lambda _: with_policy(FileResponse(WEB / "index.html"))),
                Route("/blank", lambda _: with_policy(HTMLResponse(BLANK))),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Mount("/static", StaticFiles(directory=WEB)),
            ]
        )
        config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _refuses(self, request: Request) -> JSONResponse | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return error_response(401, "The API key is missing or wrong.")

    async def _models(self, request: Request) -> Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "rsearch"}
        return self._refuses(request) or JSONResponse({"object": "list", "data": [model]})

    async def _complete(self, request: Request) -> Response:
        if refused := self._refuses(request):
            return refused
        body = await request.json()
        if body["model"] != self.model:
            return error_response(404, f"this server has {self.model} only")
        self.requests.append(body)
        reply = self.replies.popleft() if len(self.replies) > 1 else self.replies[0]
        if reply.status != 200:
            return error_response(reply.status, reply.message, reply.headers)
        return StreamingResponse(self._stream(request, reply), media_type="text/event-stream")

    async def _stream(self, request: Request, reply: Reply) -> AsyncIterator[str]:
        done = False
        try:
            for event in reply.events:
                if isinstance(event, int | float):
                    await asyncio.sleep(event)
                elif isinstance(event, threading.Event):
                    while not event.is_set():
                        await asyncio.sleep(0.01)
                else:
                    yield sent(chunk(event) if "type" in event else event)
            if not reply.cut:
                yield sent(chunk(None, finish="stop")) + "data: [DONE]\n\n"
            done = True
        finally:
            self.hung_up += not done


def ask(page: Any, question: str = QUESTION) -> Any:
    """Ask on the page; returns the turn."""
    page.fill("#question", question)
    page.keyboard.press("Enter")
    return page.locator(".turn").last


def with_policy(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    return response


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    error = {"message": message, "type": "error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


def chunk(event: Mapping[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
    """A chunk of a chat completion with an event."""
    delta = {}
    if event is not None and event["type"] in ("thinking", "answer"):
        delta = {
            {"thinking": "reasoning_content", "answer": "content"}[event["type"]]: event["text"]
        }
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    whole = {"id": "c", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice]}
    return whole if event is None else whole | {"rsearch": event}


def sent(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
