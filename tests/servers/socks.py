"""A local SOCKS5 proxy (RFC 1928, without authentication) that records what it was asked for."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import Self

from threaded import TCPServer

_CONNECT, _NAME, _IPV4 = 1, 3, 1


class SocksProxy(contextlib.AbstractContextManager["SocksProxy"]):
    """The proxy, as a context manager.

    Attributes:
        url: Its address, as in `ALL_PROXY`.
        asked: Hosts and ports that it was asked for, in order.
    """

    def __init__(self) -> None:
        asked: list[tuple[str, int]] = []

        class Relay(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                _, methods = self.rfile.read(2)
                self.rfile.read(methods)
                self.wfile.write(b"\x05\x00")
                _, command, _, kind = self.rfile.read(4)
                assert command == _CONNECT
                if kind == _NAME:
                    host = self.rfile.read(self.rfile.read(1)[0]).decode()
                else:
                    assert kind == _IPV4
                    host = socket.inet_ntoa(self.rfile.read(4))
                port = int.from_bytes(self.rfile.read(2))
                asked.append((host, port))
                with socket.create_connection(("127.0.0.1", port)) as server:
                    self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
                    back = threading.Thread(target=_copy, args=(server, self.connection))
                    back.start()
                    _copy(self.connection, server)
                    back.join()

        self._server = TCPServer(("127.0.0.1", 0), Relay)
        self.asked = asked
        self.url = f"socks5h://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def close(self) -> None:
        """Stop relaying."""
        self._server.shutdown()
        self._server.server_close()

    def __exit__(self, *error: object) -> None:
        self.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
