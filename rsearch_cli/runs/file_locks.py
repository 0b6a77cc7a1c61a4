"""Waiting for file locks held by other processes, with a limit and a message about the holder.

A stopped process keeps its locks, so that waiting without a limit could take forever.
"""

from __future__ import annotations

import itertools
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

logger = logging.getLogger(__name__)

WARN_AFTER_SECONDS = 2.0
"""Time after which a wait is logged; after Ctrl-C, also the longest wait."""

MAX_WAIT_SECONDS = 30.0
"""Longest wait for a lock that is normally held for milliseconds."""

_WARN_AGAIN_SECONDS = 60.0
_PROGRAMS = ("rsearch", "rsearch_cli")

_waits_end = threading.Event()
_warned: dict[str, float] = {}


def end_waits() -> None:
    """End all waits after two seconds: Ctrl-C was pressed."""
    _waits_end.set()


def allow_waits() -> None:
    """Permit waits of the usual length again."""
    _waits_end.clear()


class LockWait:
    """The limit of one wait for a lock.

    Args:
        path: File that is locked.
        what: What the lock protects, such as `the budget of runs/a`.
        then: What happens at the limit, such as `the run ends`.
        seconds: The limit; None takes `MAX_WAIT_SECONDS`.
        place: Byte of the file that is locked; None is any.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        then: str,
        seconds: float | None = None,
        place: int | None = None,
    ) -> None:
        self._path = path
        self._what = what
        self._then = then
        self._seconds = MAX_WAIT_SECONDS if seconds is None else seconds
        self._place = place
        self._started = time.monotonic()
        self._warned = False

    def is_over(self) -> bool:
        """Whether to stop waiting; polled every few milliseconds, it logs the holder once."""
        waited = time.monotonic() - self._started
        # Even after Ctrl-C a short wait is allowed, so that the current step can finish.
        if waited >= (WARN_AFTER_SECONDS if _waits_end.is_set() else self._seconds):
            return True
        if not self._warned and waited >= WARN_AFTER_SECONDS:
            self._warned = True
            holder = describe_holder(self._path, self._place)
            line = f"waiting for {holder}: it holds {self._what}"
            if time.monotonic() - _warned.get(line, float("-inf")) > _WARN_AGAIN_SECONDS:
                _warned[line] = time.monotonic()
                logger.warning(f"{line}; in {self._seconds - waited:.0f} s {self._then}")
        return False


def describe_holder(path: Path, place: int | None = None) -> str:
    """Return id, host, command, start and state of the process that holds a lock on a file.

    `another process` if the system does not tell: outside Linux, and for a process of another
    machine or container.
    """
    for pid in _find_holders(path, place):
        try:
            state, started = _read_state(pid)
            command = _read_command(pid)
        except (OSError, ValueError, IndexError):
            continue  # it has just exited
        since = datetime.fromtimestamp(started).astimezone().isoformat(" ", "seconds")
        stopped = f"; it is stopped, `kill -CONT {pid}` resumes it" if state in "Tt" else ""
        return f"process {pid} on {platform.node()} ({command}, since {since}{stopped})"
    return "another process"


def _find_holders(path: Path, place: int | None) -> Iterator[int]:
    """Yield the ids of the processes that hold a lock on a file, as Linux lists them."""
    try:
        file = path.stat()
        listed = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return
    for line in listed.splitlines():
        fields = line.split()
        if "->" in fields or len(fields) < 8:  # `->` marks a process that waits
            continue
        pid, inode, first = int(fields[4]), fields[5].rpartition(":")[2], fields[6]
        held_there = place is None or first == str(place)
        if int(inode) == file.st_ino and held_there and pid != os.getpid() and _has_open(pid, file):
            yield pid


def _has_open(pid: int, file: os.stat_result) -> bool:
    """Whether a process has a file open; an inode number is unique on one disk only."""
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if os.path.samestat(descriptor.stat(), file):
                return True
    except PermissionError:
        return True  # of another user: unknown
    except OSError:
        pass
    return False


def _read_state(pid: int) -> tuple[str, float]:
    """Return the state of a process, as one letter, and its start in seconds since 1970."""
    # Its name, in parentheses, may contain anything.
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    boot = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text("ascii").splitlines()
        if line.startswith("btime ")
    )
    return fields[0], boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _read_command(pid: int) -> str:
    """Return the program of a process and rsearch's command; other arguments may be secret."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    for word, following in itertools.pairwise(words):
        if Path(word).name in _PROGRAMS:
            return f"rsearch {following}" if following.isalpha() else "rsearch"
    return Path(words[0]).name
