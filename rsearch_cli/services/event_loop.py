"""Calls to services, waited for by code that is not asynchronous and can be given up at any time.

Place in the path: under search, judge and a policy on a server; the thread that waits, often the
main one, is free to take Ctrl-C, while the calls go on in a thread of their own. On failure: what
the calls raise is raised where they are waited for. Ctrl-C lets what is under way end, because it
may be paid for, but only for `PATIENCE_SECONDS`; then, or at the next Ctrl-C, it is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import suppress
from typing import Any, TypeVar

from rsearch_cli.runs.file_locks import end_waits
from rsearch_cli.services.lifetime import Closing

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""How long calls under way may go on after Ctrl-C."""

_LOOK_UP_SECONDS = 0.2
# What is done by then needs no word; local searches are.
_UNNOTICED_SECONDS = 0.2
# A call that does not let itself be cut off keeps nobody for longer.
_CUT_OFF_SECONDS = 2.0

T = TypeVar("T")


class StopNow(KeyboardInterrupt):
    """Ctrl-C for the second time: nothing is waited for."""


class EventLoop(Closing):
    """An event loop in a thread of its own, so that clients can keep their connections.

    Args:
        calls: What is called, in a word for the person who waits, such as `searches`.
    """

    def __init__(self, calls: str) -> None:
        self._calls = calls
        self._under_way: set[Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, calls: Coroutine[Any, Any, T], patience: float = PATIENCE_SECONDS) -> T:
        """Wait for calls.

        Args:
            calls: They run in the loop's thread.
            patience: Seconds that they may go on after Ctrl-C.

        Raises:
            CancelledError: `cancel` was called.
            KeyboardInterrupt: Ctrl-C; the calls are over.
        """
        future: Future[T] = Future()
        try:
            # Known before they begin: Ctrl-C may come at any moment.
            self._under_way.add(future)
            self._open().call_soon_threadsafe(_begin, calls, future)
            return wait_for(future)
        except CancelledError:
            raise asyncio.CancelledError from None
        except KeyboardInterrupt as stop:
            end_waits()
            self.cancel(0.0 if isinstance(stop, StopNow) else patience)
            raise
        finally:
            self._under_way.discard(future)

    def cancel(self, patience: float = 0.0) -> None:
        """Give up the calls that any thread waits for, and tell the person what is waited for.

        Args:
            patience: Seconds that they may go on.

        Raises:
            KeyboardInterrupt: Ctrl-C while they did; they are given up.
        """
        under_way = set(self._under_way)
        try:
            if patience and wait(under_way, _UNNOTICED_SECONDS).not_done:
                self._tell(patience)
                wait(under_way, patience)
        finally:
            if any([future.cancel() for future in under_way]) and self._loop:
                # They are told of it in the loop's next turn, and say nothing more after that.
                told = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop)
                wait([told], _CUT_OFF_SECONDS)

    def close(self) -> None:
        """Give up what is under way, and end the thread."""
        if self._loop is None or self._thread is None:
            return
        self.cancel()
        with suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CUT_OFF_SECONDS)

    def _tell(self, patience: float) -> None:
        logger.info(
            f"stopping: {self._calls} under way may be paid for and get {patience:g} s to end; "
            "press Ctrl-C again to stop now"
        )

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            ready: Future[asyncio.AbstractEventLoop] = Future()
            # A daemon: a source that blocks the loop must not hold up the end of the process.
            self._thread = threading.Thread(
                target=_serve, args=(ready,), name=self._calls, daemon=True
            )
            self._thread.start()
            self._loop = ready.result()
        return self._loop


def wait_for(future: Future[T]) -> T:
    """Wait for a result, so that Ctrl-C is noticed at any moment."""
    # A signal that comes just before a thread begins to wait does not wake it; nor does any on
    # Windows.
    while not future.done():
        wait([future], _LOOK_UP_SECONDS)
    return future.result()


def _begin(calls: Coroutine[Any, Any, T], future: Future[T]) -> None:
    """Start calls in the running loop; a future that is cancelled cuts them off."""
    if future.cancelled():
        calls.close()
        return
    loop = asyncio.get_running_loop()
    task = loop.create_task(_answer(calls, future))

    def heed(future: Future[T]) -> None:
        if future.cancelled():
            loop.call_soon_threadsafe(task.cancel)

    future.add_done_callback(heed)


async def _answer(calls: Coroutine[Any, Any, T], future: Future[T]) -> None:
    with suppress(InvalidStateError):  # it is cancelled, and nobody waits any more
        try:
            future.set_result(await calls)
        except asyncio.CancelledError:
            future.cancel()
        except BaseException as error:
            future.set_exception(error)


def _serve(ready: Future[asyncio.AbstractEventLoop]) -> None:
    """Run a loop until it is stopped, then close it with all that still is in it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready.set_result(loop)
        loop.run_forever()
