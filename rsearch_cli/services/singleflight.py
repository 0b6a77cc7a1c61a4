"""Single flight: equal requests that are in flight at the same time are sent once.

Within a process the others await the same result. Across processes they wait for a lock and then
look into the cache again; the locks are bytes of one file, at offsets hashed from the keys, because
a lock file per request would cost more than everything else the layer does for it. Where no lock
can be taken, as on Windows, a request may be sent twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rsearch_cli.runs.confined_paths import make_private
from rsearch_cli.runs.file_locks import LockWait

if sys.platform != "win32":
    import fcntl

POLL_SECONDS = 0.02
"""How often a process checks whether another one has finished a request."""

MAX_WAIT_SECONDS = 60.0
"""How long a process waits for a request of another one before it sends its own."""

T = TypeVar("T")

_opening = threading.Lock()
# Never closed: a process that closes any descriptor of a file loses all its locks on it.
_lock_files: dict[Path, int] = {}


class _Abandoned(Exception):
    """The task that was sending the request was cancelled; another one may take over."""


class SingleFlight:
    """Deduplicates concurrent requests of one event loop, and of all processes that share a file.

    Args:
        lock_file: Whose bytes are the locks between processes; None takes no locks.
    """

    def __init__(self, lock_file: Path | None) -> None:
        self._lock_file = lock_file
        self._in_flight: dict[str, asyncio.Future[Any]] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `work`, or of the equal call that is in flight already.

        If the task that runs `work` is cancelled, the next one that waits runs its own.

        Raises:
            Exception: What `work` raised, for everyone who waits.
        """
        while (flight := self._in_flight.get(key)) is not None:
            with suppress(_Abandoned):
                # Shielded: cancelling one waiter must not cancel the result for the others.
                result: T = await asyncio.shield(flight)
                return result
        flight = self._in_flight[key] = asyncio.get_running_loop().create_future()
        try:
            # Keeps other processes from sending it; the system frees the locks of a dead one.
            release = await _acquire(self._lock_file, key) if self._lock_file else None
            try:
                result = await work()
            finally:
                if release is not None:
                    release()
        except BaseException as error:
            del self._in_flight[key]
            flight.set_exception(error if isinstance(error, Exception) else _Abandoned())
            flight.exception()  # retrieved, even if nobody waits for it
            raise
        del self._in_flight[key]
        flight.set_result(result)
        return result


async def _acquire(path: Path, key: str) -> Callable[[], None] | None:
    """Take the lock of `key` and return what releases it; None if it cannot be taken."""
    if sys.platform == "win32":
        return None
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    offset = int.from_bytes(digest[:7])  # the most that any system takes for an offset
    wait = LockWait(
        path,
        "a request that this process has too",
        "this process sends it itself",
        MAX_WAIT_SECONDS,
        offset,
    )
    try:
        file = _open_lock_file(path)
        while not wait.is_over():
            with suppress(BlockingIOError, PermissionError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
                return lambda: fcntl.lockf(file, fcntl.LOCK_UN, 1, offset)
            await asyncio.sleep(POLL_SECONDS)
    except OSError:
        pass  # nothing can be written there; the cache reports that itself
    return None


def _open_lock_file(path: Path) -> int:
    with _opening:
        if path not in _lock_files:
            make_private(path.parent)
            _lock_files[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        return _lock_files[path]
