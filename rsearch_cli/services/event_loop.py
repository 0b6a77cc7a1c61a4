"""The event loop of a run, in a thread of its own: all network calls run on it.

Synchronous code submits coroutines and waits for their futures, so the waiting thread, often the
main one, can always take Ctrl-C. Ctrl-C lets calls in flight finish, because they may be paid for,
but only for `GRACE_SECONDS`; after that, or at the next Ctrl-C, they are cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Collection, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from rsearch_cli.runs.file_locks import end_waits

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long calls in flight may take to finish after Ctrl-C."""

# A signal that arrives just before a thread starts to wait does not wake it, nor does any on
# Windows: waiting threads wake up this often.
_POLL_SECONDS = 0.2
# Calls that finish within this time, such as local searches, are waited for silently.
_SILENT_SECONDS = 0.2
# A call that ignores its cancellation, or blocks the loop, holds nobody up for longer.
_CLEANUP_SECONDS = 2.0

T = TypeVar("T")


class Waiter(Protocol):
    """Somebody who waits for the results of calls."""

    @property
    def is_over(self) -> bool:
        """Whether they do not wait any more."""
        ...

    def depend_on(self, future: Future[Any]) -> None:
        """Cancel this future when they stop waiting, at once if they have."""
        ...


_waiter: ContextVar[Waiter | None] = ContextVar("waiter", default=None)


@contextmanager
def working_for(waiter: Waiter) -> Iterator[None]:
    """Cancel the calls that are started inside the block when nobody waits for them."""
    token = _waiter.set(waiter)
    try:
        yield
    finally:
        _waiter.reset(token)


def is_given_up() -> bool:
    """Whether nobody waits for what the surrounding `working_for` block does."""
    waiter = _waiter.get()
    return waiter is not None and waiter.is_over


class StopNow(KeyboardInterrupt):
    """Ctrl-C for the second time: nothing is waited for."""


class EventLoop(AbstractContextManager["EventLoop"]):
    """An asyncio event loop in a daemon thread, started by the first call."""

    def __init__(self) -> None:
        self._in_flight: set[Future[Any]] = set()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, calls: Coroutine[Any, Any, T]) -> Future[T]:
        """Schedule a coroutine on the loop; cancelling the future cancels it."""
        future: Future[T] = Future()
        if (waiter := _waiter.get()) is not None:
            waiter.depend_on(future)
        # Known before it starts, unlike with asyncio.run_coroutine_threadsafe: Ctrl-C may come now.
        self._in_flight.add(future)
        future.add_done_callback(self._forget)
        self._start().call_soon_threadsafe(_begin, calls, future)
        return future

    def run(self, calls: Coroutine[Any, Any, T], grace: float = GRACE_SECONDS) -> T:
        """Run a coroutine on the loop and wait for its result.

        Args:
            calls: The coroutine.
            grace: Seconds that everything in flight may take to finish after Ctrl-C.

        Raises:
            CancelledError: The calls were cancelled, by `cancel` or `close`.
            KeyboardInterrupt: Ctrl-C; nothing is in flight any more.
        """
        try:
            return wait_for(self.submit(calls))
        except CancelledError:
            raise asyncio.CancelledError from None
        except KeyboardInterrupt as stop:
            end_waits()
            self.cancel(0.0 if isinstance(stop, StopNow) else grace)
            raise

    def cancel(self, grace: float = 0.0) -> None:
        """Cancel everything in flight.

        Args:
            grace: Seconds to let it finish first; a line on stderr announces the wait.

        Raises:
            KeyboardInterrupt: Ctrl-C during that time; everything is cancelled.
        """
        in_flight = set(self._in_flight)
        try:
            if grace and wait(in_flight, _SILENT_SECONDS).not_done:
                self._announce(grace)
                wait(in_flight, grace)
        finally:
            if any([future.cancel() for future in in_flight]):
                # Let the loop deliver the cancellations.
                self.finish(asyncio.sleep(0))

    def finish(self, cleanup: Coroutine[Any, Any, None]) -> None:
        """Run a clean-up on the loop, such as closing connections, for at most two seconds."""
        if self._loop is None or self._loop.is_closed():
            cleanup.close()
            return
        wait([asyncio.run_coroutine_threadsafe(cleanup, self._loop)], _CLEANUP_SECONDS)

    def close(self) -> None:
        """Cancel everything in flight and end the thread."""
        if self._loop is None or self._thread is None:
            return
        self.cancel()
        with suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLEANUP_SECONDS)

    def __exit__(self, *error: object) -> None:
        self.close()

    def _forget(self, future: Future[Any]) -> None:
        self._in_flight.discard(future)
        if future.cancelled():
            future.set_running_or_notify_cancel()  # else `wait` does not take it as done

    def _announce(self, grace: float) -> None:
        logger.info(
            f"stopping: requests in flight may already be paid for and get {grace:g} s to "
            "finish; press Ctrl-C again to stop now"
        )

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                ready: Future[asyncio.AbstractEventLoop] = Future()
                # A daemon: a source that blocks the loop must not hold up the end of the process.
                self._thread = threading.Thread(
                    target=_serve, args=(ready,), name="services", daemon=True
                )
                self._thread.start()
                self._loop = ready.result()
            return self._loop


def wait_for(future: Future[T]) -> T:
    """Wait for a result so that Ctrl-C is noticed at any moment."""
    wait_until_done([future])
    return future.result()


def wait_until_done(futures: Collection[Future[Any]]) -> None:
    """Wait until all futures are done, successful or not, so that Ctrl-C is noticed."""
    while wait(futures, _POLL_SECONDS).not_done:
        pass


async def finish_all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await all calls even when one fails, because those in flight may already be paid for.

    Returns:
        Their results, in order.

    Raises:
        BaseException: The first failure, in their order.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise failures[0]
    return [result for result in results if not isinstance(result, BaseException)]


def _begin(calls: Coroutine[Any, Any, T], future: Future[T]) -> None:
    """Start a coroutine in the running loop, tied to a future."""
    if future.cancelled():
        calls.close()
        return
    loop = asyncio.get_running_loop()
    task = loop.create_task(_resolve(calls, future))

    def cancel_task(future: Future[T]) -> None:
        if future.cancelled():
            loop.call_soon_threadsafe(task.cancel)

    future.add_done_callback(cancel_task)


async def _resolve(calls: Coroutine[Any, Any, T], future: Future[T]) -> None:
    with suppress(InvalidStateError):  # the future was cancelled: nobody waits any more
        try:
            future.set_result(await calls)
        except asyncio.CancelledError:
            future.cancel()
        except BaseException as error:
            future.set_exception(error)


def _serve(ready: Future[asyncio.AbstractEventLoop]) -> None:
    """Run a loop until it is stopped, then close it with everything that is still on it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready.set_result(loop)
        loop.run_forever()
