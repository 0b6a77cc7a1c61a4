"""Ctrl-C, SIGTERM and SIGHUP: end a run at once, or after the training step in progress.

The second signal always ends the run at once, except SIGHUP: a closed terminal sends several.
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
    """Context manager that handles SIGINT, SIGTERM and SIGHUP; a no-op outside the main thread.

    SIGHUP stays ignored where it already was, as under nohup.

    Args:
        describe_resume: Returns how to resume the run, for the error message of an immediate stop.
    """

    def __init__(self, describe_resume: Callable[[], str]) -> None:
        self._describe_resume = describe_resume
        self._received: signal.Signals | None = None
        self._notify: Callable[[str], None] | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal has asked the run to stop."""
        return self._received is not None

    @contextmanager
    def deferred(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Only record the first signal inside the block; the block polls `received`.

        Args:
            notify: Called with a message as soon as the signal arrives.
        """
        self._notify = notify
        try:
            yield
        finally:
            self._notify = None

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Let the first signal end the block at once, even inside `deferred`.

        Raises:
            Interrupted: On Ctrl-C. The caller adds how to resume.
            Terminated: On SIGTERM.
            HungUp: On SIGHUP.
        """
        notify, self._notify = self._notify, None
        try:
            yield
        except StopNow:
            raise
        except KeyboardInterrupt as error:
            raise self.as_error("at once") from error
        finally:
            self._notify = notify

    def as_error(self, state: str) -> Interrupted | Terminated | HungUp:
        """Return the exception for the signal that was received.

        Args:
            state: When the run stopped and how to resume it; the end of the message.
        """
        if self._received == signal.SIGTERM:
            return Terminated(f"stopped by SIGTERM {state}")
        if self._received == _HANG_UP:
            return HungUp(f"stopped by SIGHUP {state}")
        return Interrupted(f"stopped by Ctrl-C {state}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self._received is None
        if number == _HANG_UP and not first:
            return
        self._received = signal.Signals(number)
        end_waits()
        if not first:
            raise StopNow
        if not self._notify:
            raise KeyboardInterrupt
        # In a thread, because the signal may have arrived while this one was printing.
        threading.Thread(target=self._notify, args=(_STOPPING,)).start()

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
            raise self.as_error(f"at once; {self._describe_resume()}") from error
