"""Runs the HTTP server of an agent, from its socket to the end of its last request."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.errors import (
    AddressUnavailable,
    HungUp,
    Interrupted,
    RsearchError,
    Terminated,
    UsageError,
)
from rsearch_cli.recipe.addresses import is_loopback
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.answer import count
from rsearch_cli.services.keys import find_flaw
from rsearch_cli.serving.app import build_app
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.guard import Guard
from rsearch_cli.serving.local_server import make_config
from rsearch_cli.serving.settings import KEY_VARIABLE, LEAST_KEY_CHARS, ServeSettings
from rsearch_cli.workflows.ask import Agent

logger = logging.getLogger(__name__)

_BACKLOG = 512
# The usual limit of open files is 1,024 for a process.
_CONNECTIONS = 800
# Longer than proxies keep an idle connection, so that none is closed as they use it.
_KEEP_ALIVE_SECONDS = 75
_HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
_STOPPED: dict[int | None, type[RsearchError]] = {
    signal.SIGINT: Interrupted,
    signal.SIGTERM: Terminated,
    _HANG_UP: HungUp,
}


def open_listener(host: str, port: int, key: str | None = None) -> socket.socket:
    """Bind the address of a server; it accepts connections once the server runs.

    Args:
        host: Name or address.
        port: 0 takes any free port.
        key: What clients have to send, or None.

    Raises:
        AddressUnavailable: The port is in use, or the host is not this machine's.
        UsageError: Other machines could use the server without a key, or the key is not valid.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise AddressUnavailable(f"--host {host}: {error}") from error
    # A name such as localhost may have both kinds of addresses; clients try IPv4 in any case.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    _check_key(host, str(address[0]), key)
    listener = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unavailable(host, port, error) from error
    return listener


def serve(agent: Agent, listener: socket.socket, model: str, settings: ServeSettings) -> None:
    """Serve an agent until a signal ends the server.

    The first SIGTERM, Ctrl-C or SIGHUP lets the requests that were accepted finish, for at most
    `drain_seconds`; the second one cuts them off.

    Args:
        agent: Answers; it is not closed.
        listener: As `open_listener` returns it; closed at the end.
        model: The name under which clients ask for the agent.
        settings: Key and limits.

    Raises:
        AddressUnavailable: Another process took the port meanwhile.
        Interrupted: Ctrl-C, and requests were cut off.
        Terminated: SIGTERM, and requests were cut off.
        HungUp: SIGHUP, and requests were cut off.
    """
    host, port = listener.getsockname()[:2]
    with listener:
        try:
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _unavailable(host, port, error) from error
        with ServingEngine(agent, max_waiting=settings.max_waiting) as engine:
            guard = build_app(engine, model, settings)
            stopper = _Stopper(guard, engine, settings.drain_seconds)
            _announce(agent, model, host, port, settings)
            _run(guard, listener, stopper, settings)
    if stopper.cut_off:
        raise _STOPPED[stopper.signal](
            f"stopped, and {count(stopper.cut_off, 'request', 'requests')} ended without an "
            "answer; --drain-seconds allows more time"
        )
    logger.info("stopped; every request has ended")


def name_model(recipe: Recipe, name: str) -> str:
    """Return the name under which clients ask for an agent.

    Args:
        recipe: Its settings.
        name: Run folder, model folder, Hub id or built-in model.
    """
    endpoint = recipe.policy.endpoint
    if endpoint.url is not None:
        return endpoint.model or recipe.policy.model
    return Path(name).resolve().name if Path(name).is_dir() else name


def _check_key(host: str, address: str, key: str | None) -> None:
    """Check that there is a key where one is needed, and that it can be one."""
    if key is None:
        if not is_loopback(address):
            raise UsageError(
                f"--host {host} opens the server to other machines, which needs a key: set "
                f"{KEY_VARIABLE} in the environment, for example with "
                f"export {KEY_VARIABLE}=$(openssl rand -hex 32)"
            )
        return
    if (flaw := find_flaw(KEY_VARIABLE, key)) is not None:
        raise UsageError(flaw)
    if len(key) < LEAST_KEY_CHARS:
        raise UsageError(
            f"{KEY_VARIABLE} has {count(len(key), 'character', 'characters')}; at least "
            f"{LEAST_KEY_CHARS} are needed, such as those of: openssl rand -hex 32"
        )


class _Stopper:
    """Ends a server on a signal.

    Attributes:
        signal: The first one, or None.
        cut_off: Number of requests that did not finish.
        stop: Ends the server; set by `_run`.
    """

    def __init__(self, guard: Guard, engine: ServingEngine, drain_seconds: float) -> None:
        self.signal: int | None = None
        self.cut_off = 0
        self.stop: Callable[[], None] = lambda: None
        self._guard = guard
        self._engine = engine
        self._seconds = drain_seconds

    def receive(self, number: int) -> None:
        """Handle a signal; called in the main thread."""
        if self.signal is None:
            self.signal = number
            self._guard.draining = True
            threading.Thread(target=self._drain, name="draining", daemon=True).start()
        elif number != _HANG_UP:  # a closed terminal sends several
            self._cut_off()

    def _drain(self) -> None:
        open_now = self._engine.waiting + self._engine.running
        if open_now:
            requests = count(open_now, "request", "requests")
            logger.info(
                f"shutting down: {requests} may take up to {self._seconds:g} s to finish; press "
                "Ctrl-C again to stop now"
            )
        if self._engine.drain(self._seconds):
            self.stop()
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        self.cut_off = self.cut_off or self._engine.waiting + self._engine.running
        # In a thread: it waits for the threads of the engine, and a signal handler must not.
        threading.Thread(target=self._engine.close, daemon=True).start()
        self.stop()


def _run(guard: Guard, listener: socket.socket, stopper: _Stopper, settings: ServeSettings) -> None:
    """Run uvicorn until `stopper` ends it."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            stopper.receive(sig)

    config = make_config(
        guard,
        lifespan="on",
        limit_concurrency=max(_CONNECTIONS, 2 * settings.max_waiting),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    server = Server(config)

    def stop() -> None:
        server.should_exit = True

    stopper.stop = stop
    # What it cancels at its end is not worth a line.
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    with _on_hang_up(stopper):
        server.run(sockets=[listener])


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Cancel ")


@contextmanager
def _on_hang_up(stopper: _Stopper) -> Iterator[None]:
    """Handle SIGHUP like the signals that uvicorn handles, unless it is ignored (nohup)."""
    if _HANG_UP is None or signal.getsignal(_HANG_UP) == signal.SIG_IGN:
        yield
        return
    previous = signal.signal(_HANG_UP, lambda number, frame: stopper.receive(number))
    try:
        yield
    finally:
        signal.signal(_HANG_UP, previous)


def _announce(agent: Agent, model: str, host: str, port: int, settings: ServeSettings) -> None:
    shown = f"[{host}]" if ":" in host else host
    key = "with the API key" if settings.api_key else "without a key, from this machine only"
    logger.info(f"serving {agent.name} as model {model}, {key}")
    logger.info(
        f"listening on http://{shown}:{port} (OpenAI API: /v1, MCP: /mcp, page: /); "
        "press Ctrl-C to stop"
    )


def _unavailable(host: str, port: int, error: OSError) -> AddressUnavailable:
    reason = error.strerror or str(error)
    return AddressUnavailable(
        f"cannot listen on {host}:{port}: {reason.lower()}; choose another one with --port, where "
        "0 takes any free port"
    )
