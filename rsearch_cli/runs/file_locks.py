"""Locks between processes: who holds one, and how long it is waited for.

A process that is stopped keeps its locks. Whoever waits for one says after two seconds for whom,
and does not wait for ever, nor on after Ctrl-C.
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


TELL_AFTER_SECONDS = 2.0
"""How long a lock is waited for in silence."""

PATIENCE_SECONDS = 30.0
"""How long a lock is waited for that is held for moments only."""

_TELL_AGAIN_SECONDS = 60.0
_PROGRAMS = ("rsearch", "rsearch_cli")

_waits_end = threading.Event()
_told: dict[str, float] = {}


def end_waits() -> None:
    """Let nothing wait for a lock for longer than two seconds: the person has pressed Ctrl-C."""
    _waits_end.set()


def allow_waits() -> None:
    """Let locks be waited for again."""
    _waits_end.clear()


class Patience:
    """How long a lock is waited for.

    Args:
        path: File that is locked.
        what: What the lock is for, such as `the budget of runs/a`.
        then: What happens when patience ends, such as `the run ends`.
        seconds: When it ends; None takes `PATIENCE_SECONDS`.
        place: Byte of the file that is locked; None is any of it.
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
        self._seconds = PATIENCE_SECONDS if seconds is None else seconds
        self._place = place
        self._started = time.monotonic()
        self._silent = True

    def is_over(self) -> bool:
        """Whether to wait no longer; asked every few milliseconds, it says once for whom."""
        waited = time.monotonic() - self._started
        # A lock that is held for moments is waited for after Ctrl-C, too: the step has to end.
        if waited >= (TELL_AFTER_SECONDS if _waits_end.is_set() else self._seconds):
            return True
        if self._silent and waited >= TELL_AFTER_SECONDS:
            self._silent = False
            holder = describe_holder(self._path, self._place)
            line = f"waiting for {holder}: it holds {self._what}"
            if time.monotonic() - _told.get(line, float("-inf")) > _TELL_AGAIN_SECONDS:
                _told[line] = time.monotonic()
                logger.warning(f"{line}; in {self._seconds - waited:.0f} s {self._then}")
        return False


def describe_holder(path: Path, place: int | None = None) -> str:
    """Name the process that holds a lock on a file: its id, host, command, start and state.

    It is `another process` where the system does not say: outside of Linux, and for the process of
    another machine or container.
    """
    for pid in _find_holders(path, place):
        try:
            state, started = _read_state(pid)
            command = _read_command(pid)
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
        since = datetime.fromtimestamp(started).astimezone().isoformat(" ", "seconds")
        stopped = f"; it is stopped, `kill -CONT {pid}` lets it go on" if state in "Tt" else ""
        return f"process {pid} on {platform.node()} ({command}, since {since}{stopped})"
    return "another process"


def _find_holders(path: Path, place: int | None) -> Iterator[int]:
    """Ids of the processes that hold a lock on a file, as Linux lists them."""
    try:
        file = path.stat()
        listed = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return
    for line in listed.splitlines():
        fields = line.split()
        if "->" in fields or len(fields) < 8:  # the former waits, too
            continue
        pid, inode, first = int(fields[4]), fields[5].rpartition(":")[2], fields[6]
        held_there = place is None or first == str(place)
        if int(inode) == file.st_ino and held_there and pid != os.getpid() and _has_open(pid, file):
            yield pid


def _has_open(pid: int, file: os.stat_result) -> bool:
    """Whether a process has a file open; files of two disks may have one number."""
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if os.path.samestat(descriptor.stat(), file):
                return True
    except PermissionError:
        return True  # of another user, who cannot be asked
    except OSError:
        pass
    return False


def _read_state(pid: int) -> tuple[str, float]:
    """State of a process, as one letter, and when it began, in seconds since 1970."""
    # Its name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    boot = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text("ascii").splitlines()
        if line.startswith("btime ")
    )
    return fields[0], boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _read_command(pid: int) -> str:
    """The program of a process, of ours with the command; other arguments may be secret."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    for word, following in itertools.pairwise(words):
        if Path(word).name in _PROGRAMS:
            return f"rsearch {following}" if following.isalpha() else "rsearch"
    return Path(words[0]).name
