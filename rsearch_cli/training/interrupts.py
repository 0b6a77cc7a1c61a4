"""Ctrl-C, SIGTERM and SIGHUP: when they end a run at once, and when only after the step under way.

Place in the path: around the whole of `rsearch train`; the trainer asks after every step whether it
should stop. On failure: what a signal ends is raised as `Interrupted`, `Terminated` or `HungUp`,
with how the run goes on. The second signal ends at once whatever is under way, unless it is SIGHUP:
a terminal that is closed sends several.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from rsearch_cli.errors import HungUp, Interrupted, Terminated
from rsearch_cli.runs.file_locks import allow_waits, end_waits
from rsearch_cli.services.event_loop import StopNow

_STOPPING = "finishing the step, then saving; press Ctrl-C again to stop now"


# Windows has no SIGHUP.
_HANG_UP = getattr(signal, "SIGHUP", None)


class Interrupts:
    """Takes SIGINT, SIGTERM and SIGHUP while it is entered; outside the main thread nothing.

    A SIGHUP that is ignored already, as under nohup, stays so.

    Args:
        describe_resume: Says how the run goes on, for the message of what ends at once.
    """

    def __init__(self, describe_resume: Callable[[], str]) -> None:
        self._describe_resume = describe_resume
        self._received: signal.Signals | None = None
        self._tell: Callable[[str], None] | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal has asked for the end of the run."""
        return self._received is not None

    @contextmanager
    def patiently(self, tell: Callable[[str], None]) -> Iterator[None]:
        """In the block, let the first signal only be noted; `received` is then to be asked for.

        Args:
            tell: Shows the person, at once, that the signal has come.
        """
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In the block, even if it is within `patiently`, let the first signal end what it does.

        Raises:
            Interrupted: Ctrl-C ended it; who watches over the step adds how the run goes on.
            Terminated: The same for SIGTERM.
            HungUp: The same for SIGHUP.
        """
        tell, self._tell = self._tell, None
        try:
            yield
        except StopNow:
            raise
        except KeyboardInterrupt as error:
            raise self.stop("at once") from error
        finally:
            self._tell = tell

    def stop(self, where: str) -> Interrupted | Terminated | HungUp:
        """The exception that ends the run in good order.

        Args:
            where: What is done and saved, and how to go on.
        """
        if self._received == signal.SIGTERM:
            return Terminated(f"stopped by SIGTERM {where}")
        if self._received == _HANG_UP:
            return HungUp(f"stopped by SIGHUP {where}")
        return Interrupted(f"stopped by Ctrl-C {where}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self._received is None
        if number == _HANG_UP and not first:
            return
        self._received = signal.Signals(number)
        end_waits()
        if not first:
            raise StopNow
        if not self._tell:
            raise KeyboardInterrupt
        # In a thread: the signal may have come while this one was in the midst of printing.
        threading.Thread(target=self._tell, args=(_STOPPING,)).start()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._receive)
            if _HANG_UP and signal.getsignal(_HANG_UP) != signal.SIG_IGN:
                self._handlers[_HANG_UP] = signal.signal(_HANG_UP, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        allow_waits()
        if self.received and isinstance(error, KeyboardInterrupt):
            raise self.stop(f"at once; {self._describe_resume()}") from error
