"""MCP over stdin and stdout: nothing but the protocol reaches stdout, whoever prints."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from rsearch_cli.interrupts import Interrupts
from rsearch_cli.services.event_loop import wait_for
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.mcp_server import build_mcp
from rsearch_cli.workflows.ask import Agent

logger = logging.getLogger(__name__)

_CLOSING_SECONDS = 2.0
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class ProtocolStreams:
    """File descriptors of the protocol's two pipes."""

    incoming: int
    outgoing: int


@contextmanager
def claimed_stdio() -> Iterator[ProtocolStreams]:
    """Reserve stdin and stdout for the protocol inside the block.

    Everything else in the process, and every process it starts, finds stdin at its end, and what
    it prints to stdout comes out on stderr.
    """
    sys.stdout.flush()
    streams = ProtocolStreams(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield streams
    finally:
        sys.stdout.flush()
        os.dup2(streams.outgoing, 1)
        os.dup2(streams.incoming, 0)
        # The reading thread may be waiting on `incoming`: closing it would free its number.
        os.close(streams.outgoing)


def serve_stdio(open_agent: Callable[[], Agent], max_waiting: int) -> None:
    """Serve MCP over stdin and stdout until the client closes its end.

    The handshake is answered at once, because clients do not wait long for it; the tools wait
    until the agent is open.

    Args:
        open_agent: Opens the agent, which is closed at the end.
        max_waiting: Most questions that wait for their turn.

    Raises:
        Interrupted: Ctrl-C.
        Terminated: SIGTERM.
    """
    with (
        Interrupts(lambda: "MCP clients start it again when they need it"),
        claimed_stdio() as streams,
        _Connection(streams) as connection,
        open_agent() as agent,
        ServingEngine(agent, max_waiting=max_waiting, explain_all=True) as engine,
    ):
        logger.info(f"serving {agent.name} over MCP on stdin and stdout")
        connection.opened.set_result(engine)
        wait_for(connection.ended)


class _Connection:
    """The connection to the client, served by an event loop in a thread of its own."""

    def __init__(self, streams: ProtocolStreams) -> None:
        self.opened: Future[ServingEngine] = Future()
        self.ended: Future[None] = Future()
        self._streams = streams
        self._lines: _Lines | None = None
        self._thread = threading.Thread(target=self._run, name="mcp", daemon=True)

    def __enter__(self) -> Self:
        # Imported before the thread starts: from now on this one imports the agent.
        import mcp.server.stdio  # noqa: F401

        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._lines is not None:
            self._lines.end()
        self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def _serve(self) -> None:
        from mcp.server.stdio import stdio_server

        self._lines = lines = _Lines(self._streams.incoming)
        writer = _Writer(self._streams.outgoing, lines.end)
        server = build_mcp(self.opened, explain_all=True)
        async with stdio_server(stdin=lines, stdout=writer) as (received, sent):
            await server.run(received, sent, server.create_initialization_options())


class _Lines:
    """The lines of a pipe, read by a thread that does not keep the process from ending."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._lines = asyncio.Queue[str | None](1)
        self._ended = False
        threading.Thread(target=self._read, name="mcp-stdin", daemon=True).start()

    def end(self) -> None:
        """End the lines, as if the client had closed the pipe."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ended = True
        with suppress(asyncio.QueueFull):  # then the next line shows it
            self._lines.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (line := await self._lines.get()) is not None and not self._ended:
            yield line

    def _read(self) -> None:
        rest = b""
        with suppress(OSError, RuntimeError):  # the pipe is broken, or the loop has ended
            while chunk := os.read(self._number, _CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._put(line.decode("utf-8", "replace"))
            self._put(None)

    def _put(self, line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop).result()


class _Writer:
    """The outgoing pipe.

    Args:
        number: Its file descriptor.
        on_broken: Called if the client has closed its end.
    """

    def __init__(self, number: int, on_broken: Callable[[], None]) -> None:
        self._number = number
        self._on_broken = on_broken

    async def write(self, text: str) -> None:
        """Write all of a text."""
        try:
            await asyncio.to_thread(self._write, text.encode())
        except BrokenPipeError:
            self._on_broken()

    async def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._number, data) :]
