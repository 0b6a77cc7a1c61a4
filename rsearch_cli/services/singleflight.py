"""Single flight: a request that is under way is waited for, not repeated.

Place in the path: in the client, between a look into the cache that found nothing and the call.
Within a process, across threads and event loops, those who wait get the very answer; across
processes they wait for a lock and then look into the cache again. On failure: all who wait get the
failure; if the one who asks is cancelled or dies, the next in line asks; a lock that cannot be had
at all, as on Windows, costs at most a second call.

The locks between processes are bytes of one file, at the places that the keys hash to: a file a
request costs more than all else that the layer does for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from rsearch_cli.runs.confined_paths import make_private
from rsearch_cli.runs.file_locks import Patience

if sys.platform != "win32":
    import fcntl

POLL_SECONDS = 0.02
"""How often a process looks whether another one is done with a request."""

PATIENCE_SECONDS = 60.0
"""How long it waits for one that is alive but stands still, before it asks by itself."""

LOCKS = "locks"
"""Name of the file whose bytes are locked."""

T = TypeVar("T")

_guard = threading.Lock()
_under_way: dict[tuple[Path, str], Future[Any]] = {}
# Never closed: a process that closes a file gives up all its locks on it.
_lock_files: dict[Path, int] = {}


class _Abandoned(Exception):
    """The one who asked was cancelled; whoever waits may ask."""


class SingleFlight:
    """The requests under way among all who name the same folder."""

    def __init__(self, folder: Path, *, across_processes: bool = True) -> None:
        """Name the folder of the file that holds the locks between processes."""
        self._folder = folder
        self._across_processes = across_processes

    async def share(self, key: str, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Do the work for `key`, or wait for the one who is doing it.

        Returns:
            The result, and whether `work` was run for it here.

        Raises:
            Exception: What `work` raised, here or where it was run.
        """
        name = (self._folder, key)
        while True:
            with _guard:
                flight: Future[T] | None = _under_way.get(name)
                leads = flight is None
                if flight is None:
                    flight = _under_way[name] = Future()
                    # Else a waiter that is cancelled would cancel the flight for all others.
                    flight.set_running_or_notify_cancel()
            if leads:
                return await self._lead(name, flight, work), True
            with suppress(_Abandoned):
                return await asyncio.wrap_future(flight), False

    async def _lead(
        self, name: tuple[Path, str], flight: Future[T], work: Callable[[], Awaitable[T]]
    ) -> T:
        try:
            async with self._alone(name[1]):
                result = await work()
        except BaseException as error:
            _land(name)
            flight.set_exception(error if isinstance(error, Exception) else _Abandoned())
            raise
        _land(name)
        flight.set_result(result)
        return result

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Keep other processes from working for `key`; the system frees what a dead one held."""
        release = await self._acquire(key) if self._across_processes else None
        try:
            yield
        finally:
            if release is not None:
                release()

    async def _acquire(self, key: str) -> Callable[[], None] | None:
        """Take the lock of `key`, and give what releases it; None if there is no lock to be had."""
        if sys.platform == "win32":
            return None
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:7])  # what any system takes for an offset
        patience = Patience(
            self._folder / LOCKS,
            "a request that this process has too",
            "this process asks for itself",
            PATIENCE_SECONDS,
            place,
        )
        try:
            file = _open_lock_file(self._folder)
            while not patience.is_over():
                with suppress(BlockingIOError, PermissionError):
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                    return lambda: fcntl.lockf(file, fcntl.LOCK_UN, 1, place)
                await asyncio.sleep(POLL_SECONDS)
        except OSError:
            pass  # nothing can be written there; the cache says so by itself
        return None


def _open_lock_file(folder: Path) -> int:
    with _guard:
        if folder not in _lock_files:
            make_private(folder)
            _lock_files[folder] = os.open(folder / LOCKS, os.O_RDWR | os.O_CREAT, 0o600)
        return _lock_files[folder]


def _land(name: tuple[Path, str]) -> None:
    with _guard:
        del _under_way[name]
