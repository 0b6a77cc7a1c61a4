"""A local HTTP server for real clients that can be slow, busy or broken on request.

The servers of single services build on it and define what a good answer and an error look like. It
counts the requests it receives, so tests and benchmarks can rely on the server's own count.
Standard library only, one thread, one event loop.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from faults import Fault, Faults

Answer = tuple[int, Any]
"""HTTP status and the JSON body, or `Raw`."""

_HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer's body byte for byte.

    Attributes:
        body: The bytes.
        headers: Replace those that the server sends by itself.
        pause: Seconds between one part of the body and the next.
        parts: Parts in which it is sent.
    """

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    parts: int = 1


@dataclass(slots=True)
class Received:
    """One request.

    Attributes:
        method: `POST`, `GET`, ...
        path: Without what follows the question mark.
        query: What follows it; the last value of a name counts.
        headers: Names in lower case.
        body: The JSON body, or None.
        arrived: Seconds on the monotonic clock.
        fault: What the server did wrong on purpose, or None.
        status: The HTTP status that was sent; 0 while there is none.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: Any
    arrived: float
    fault: Fault | None = None
    status: int = 0


class LocalServer:
    """An HTTP/1.1 server on the loopback address, in a thread of its own.

    `respond` is what a service overrides. `GET /counts` gives `counts` as JSON to other processes.

    Attributes:
        faults: What goes wrong; may be set anew at any time.
        requests: Everything that arrived, in order, without `GET /counts`.
        most_at_once: Most requests that were under way at the same time.
        connections: Connections that were ever opened.
        open_connections: Those that are open now.
        hold_after: Parts of a streamed answer after which it stands still until this is None.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        faults: Faults | None = None,
        retry_after: str | None = "1",
        stall_seconds: float = 30.0,
        port: int = 0,
    ) -> None:
        """Describe the server; `start` opens it.

        Args:
            latency: Mean time to an answer, in seconds.
            jitter: Most that the latency differs from its mean, in seconds either way.
            faults: What goes wrong; nothing by default.
            retry_after: The header of a 429 and a 503: seconds, an HTTP date, or None to leave out.
            stall_seconds: How long a stalled request is held before its connection is closed.
            port: Port to listen on; 0 takes a free one.
        """
        self.faults = faults or Faults()
        self.requests: list[Received] = []
        self.most_at_once = 0
        self.connections = 0
        self.open_connections = 0
        self._latency = latency
        self._jitter = jitter
        self._retry_after = retry_after
        self._stall_seconds = stall_seconds
        self._port = port
        self._random = random.Random(0)
        self._under_way = 0
        self.hold_after: int | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def respond(self, request: Received) -> Answer:
        """Answer a request that no fault hits."""
        raise NotImplementedError

    def describe_error(self, status: int, message: str) -> Any:
        """The JSON body of an error, in the service's own shape."""
        raise NotImplementedError

    def split(self, request: Received, value: Any) -> list[str] | None:
        """The server-sent events of a good answer; None sends it as a whole."""
        return None

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Listen, and return when the first request can come."""
        self._thread = threading.Thread(target=self._run, name="local-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the local server did not start")
        return self

    def stop(self) -> None:
        """Close all connections, also those of requests under way, and wait for the thread."""
        if self._thread is not None and self._thread.is_alive():
            assert self._loop is not None and self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def counts(self) -> dict[str, Any]:
        """Totals so far.

        Returns:
            `requests` arrived; `answered` with status 200 and a whole body; `failed`, by fault;
            `distinct` bodies; `repeated`: answered requests whose body had been answered before.
        """
        good = [r for r in self.requests if r.status == 200 and r.fault is None]
        return {
            "requests": len(self.requests),
            "answered": len(good),
            "failed": dict(Counter(str(r.fault) for r in self.requests if r.fault)),
            "distinct": len({json.dumps(r.body, sort_keys=True) for r in self.requests}),
            "repeated": len(good) - len({json.dumps(r.body, sort_keys=True) for r in good}),
            "most_at_once": self.most_at_once,
        }

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", self._port, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        # Not `async with`: that waits for handlers, and a stalled one would take its whole time.
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client leaves or a fault cuts it."""
        self.connections += 1
        self.open_connections += 1
        try:
            while (request := await _read_request(reader)) is not None:
                if not await self._serve_one(request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def _serve_one(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False if the connection is to be closed."""
        if (request.method, request.path) == ("GET", "/counts"):
            return await _send(writer, 200, json.dumps(self.counts()).encode())
        self.requests.append(request)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            request.fault = self.faults.draw()
            wait = self._latency + self._random.uniform(-self._jitter, self._jitter)
            await asyncio.sleep(self._stall_seconds if request.fault is Fault.STALL else wait)
        finally:
            self._under_way -= 1
        return await self._send_answer(request, writer)

    async def _send_answer(self, request: Received, writer: asyncio.StreamWriter) -> bool:
        fault, headers = request.fault, {}
        if fault is Fault.STALL:
            return False
        if fault is not None and fault.status is not None:
            status, value = fault.status, self.describe_error(fault.status, f"fault {fault}")
            if status in (429, 503) and self._retry_after is not None:
                headers["Retry-After"] = self._retry_after
        else:
            status, value = self.respond(request)
        request.status = status
        if isinstance(value, Raw):
            return await _send_raw(writer, status, value)
        body = json.dumps(value).encode()
        if fault is Fault.HTML:
            return await _send(writer, 200, _HTML, {"Content-Type": "text/html"})
        if fault is Fault.BAD_JSON:
            return await _send(writer, 200, body[: len(body) // 2])
        events = self.split(request, value) if status == 200 else None
        if events is not None:
            return await self._stream(writer, events, cut=fault is Fault.CUT)
        if fault is Fault.CUT:
            writer.write(_head(200, len(body), {}) + body[: len(body) // 2])
            await writer.drain()
            return False
        return await _send(writer, status, body, headers)

    async def _stream(self, writer: asyncio.StreamWriter, events: list[str], cut: bool) -> bool:
        """Send server-sent events in chunks; with `cut`, break off in the middle."""
        fields = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked"
        writer.write(f"HTTP/1.1 200 .\r\n{fields}\r\n\r\n".encode())
        for sent, event in enumerate(events[: len(events) // 2] if cut else events):
            while self.hold_after is not None and sent >= self.hold_after:
                await asyncio.sleep(0.01)
            data = f"data: {event}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
        writer.write(b"" if cut else b"0\r\n\r\n")
        await writer.drain()
        return not cut


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    """Read one request with its body; None when the client has closed the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    body = json.loads(raw) if raw else None
    path, _, query = target.partition("?")
    return Received(method, path, dict(parse_qsl(query)), headers, body, time.monotonic())


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
) -> bool:
    writer.write(_head(status, len(body), headers or {}) + body)
    await writer.drain()
    return True


async def _send_raw(writer: asyncio.StreamWriter, status: int, raw: Raw) -> bool:
    writer.write(_head(status, len(raw.body), raw.headers))
    size = -(-len(raw.body) // raw.parts) or 1
    for start in range(0, len(raw.body), size):
        writer.write(raw.body[start : start + size])
        await writer.drain()
        await asyncio.sleep(raw.pause)
    return True


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(length)} | headers
    lines = [f"HTTP/1.1 {status} .", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
