"""Threaded servers whose clients may go away.

The standard library prints a traceback then, on the stderr of whichever test is running by then.
"""

from __future__ import annotations

import socketserver
import sys
from http.server import ThreadingHTTPServer
from typing import Any


class _QuietServer(socketserver.BaseServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class HTTPServer(_QuietServer, ThreadingHTTPServer):
    """A server of HTTP with a thread for every connection."""

    daemon_threads = True


class TCPServer(_QuietServer, socketserver.ThreadingTCPServer):
    """A server of any protocol over TCP with a thread for every connection."""

    daemon_threads = True
