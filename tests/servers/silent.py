"""Servers that take every connection and do not answer: what a person presses Ctrl-C at."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

from faults import Fault, Faults
from local_http import Answer, Received
from openai_chat import ChatServer


class SilentServer:
    """Listens on the loopback address until its block is left.

    Attributes:
        asked: Set once somebody has sent something.
    """

    def __init__(self) -> None:
        """Open the socket."""
        self.asked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take, daemon=True)

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the block is left
                return
            self._taken.append(connection)
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        try:
            if connection.recv(1):
                self.asked.set()
        except OSError:  # the block is left, or the client is gone
            return

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        # Closing alone does not wake a thread that waits in `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._taken:
            connection.close()


class _Silence(Faults):
    """Every request stalls, and the first of them is noticed."""

    def __init__(self, asked: threading.Event) -> None:
        super().__init__([Fault.STALL])
        self._asked = asked

    def draw(self) -> Fault | None:
        self._asked.set()
        return super().draw()


class FallingSilent(ChatServer):
    """A chat server that answers the request that tries it out, and nothing after it.

    Attributes:
        asked: Set once something else was asked.
    """

    def __init__(self) -> None:
        super().__init__(lambda body: '{"score": 0}', api_key=None, stall_seconds=600.0)
        self.asked = threading.Event()

    def respond(self, request: Received) -> Answer:
        """Answer, and fall silent after a completion."""
        answer = super().respond(request)
        if answer[0] == 200:
            self.faults = _Silence(self.asked)
        return answer
