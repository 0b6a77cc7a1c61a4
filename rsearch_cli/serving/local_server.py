"""Runs a small ASGI app until a signal, and answers what it refuses as JSON."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

from rsearch_cli.serving.api_errors import as_api_error
from rsearch_cli.serving.guard import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    secure_headers,
    send_error,
)
from rsearch_cli.serving.request_body import ClientGone

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 2
"""How long connections may take to close at the end of a server, when its answers are written."""


def run_server(app: App, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Run an app until Ctrl-C or SIGTERM.

    Args:
        app: An ASGI app.
        listener: A bound socket; closed at the end.
        on_ready: Called when the socket accepts connections.
    """
    import uvicorn

    # Signals only end the server: uvicorn itself would raise them again afterwards.
    server_class = type("Server", (uvicorn.Server,), {"handle_exit": _stop})
    config = make_config(app, interface="asgi3", lifespan="off")
    with listener:
        listener.listen()
        on_ready()
        logger.info("press Ctrl-C to stop")
        server_class(config).run(sockets=[listener])


def make_config(app: App, **options: Any) -> Any:
    """Return the configuration of uvicorn that all servers share; messages are ours, not its own.

    Args:
        app: An ASGI app.
        **options: Further arguments of `uvicorn.Config`.
    """
    import uvicorn

    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        **options,
    )


async def guarded(
    app: App,
    check: Callable[[Mapping[str, str]], None],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answer requests that pass a check, with the headers that confine pages.

    Args:
        app: The app.
        check: Called with the headers by lower-case name; raises `ApiError`.
        scope: As in ASGI.
        receive: As in ASGI.
        send: As in ASGI.
    """
    started = False

    async def send_secured(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = True
            message["headers"] = secure_headers(message.get("headers", ()), "no-cache")
        await send(message)

    try:
        check({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})
        await app(scope, receive, send_secured)
    except ClientGone:
        pass
    except Exception as error:
        if started:
            raise
        await send_error(send_secured, as_api_error(error))


def _stop(server: Any, sig: int, frame: Any) -> None:
    server.should_exit = True
