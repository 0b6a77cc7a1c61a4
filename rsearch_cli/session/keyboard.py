"""The terminal while nothing is read from it, and its state when the process ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rsearch_cli.errors import HungUp, Terminated

# Windows has none.
_HANG_UP = getattr(signal, "SIGHUP", None)
_CONTINUE = getattr(signal, "SIGCONT", None)


@contextmanager
def typing_ahead() -> Iterator[None]:
    """Hide what is typed inside the block, and keep it for the next prompt.

    Ctrl-C and Ctrl-Z work as ever. At the end, however it comes about, the terminal is as it was
    before; what is left of the input goes to whoever reads next, such as the shell. SIGTERM and
    SIGHUP end the block. Without a terminal, only that is done, and only in the main thread.

    Raises:
        Terminated: On SIGTERM.
        HungUp: On SIGHUP.
    """
    with _ended_by_signals(), _hidden_input():
        yield


class _Ended(SystemExit):
    """A signal as an exception that event loops do not catch."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        if not ended:
            ended = True
            raise _Ended(number)

    numbers = [signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers.clear()
    elif _HANG_UP is not None and signal.getsignal(_HANG_UP) != signal.SIG_IGN:  # as under nohup
        numbers.append(_HANG_UP)
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except _Ended as error:
        if error.number == signal.SIGTERM:
            raise Terminated("stopped by SIGTERM") from None
        raise HungUp("stopped by SIGHUP: the terminal was closed") from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _hidden_input() -> Iterator[None]:
    in_main_thread = threading.current_thread() is threading.main_thread()
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not (in_main_thread and at_terminal) or os.name == "nt":
        yield
        return
    import termios

    number = sys.stdin.fileno()

    def hide(*_: object) -> None:
        if not _in_foreground(number):
            return
        state = termios.tcgetattr(number)
        # Without ICANON, lines are not limited to 4096 bytes and keys reach the prompt unedited.
        state[3] &= ~(termios.ECHO | termios.ICANON)
        state[6][termios.VMIN], state[6][termios.VTIME] = 1, 0
        termios.tcsetattr(number, termios.TCSANOW, state)

    before = termios.tcgetattr(number)
    # After Ctrl-Z, the shell has set the terminal to its own needs.
    previous = None if _CONTINUE is None else signal.signal(_CONTINUE, hide)
    try:
        hide()
        yield
    finally:
        if _CONTINUE is not None:
            signal.signal(_CONTINUE, previous)
        if _in_foreground(number):
            termios.tcsetattr(number, termios.TCSANOW, before)


def _in_foreground(number: int) -> bool:
    """Whether the terminal is ours: the shell stops a background process that changes it."""
    try:
        return os.tcgetpgrp(number) == os.getpgrp()
    except OSError:  # it has been closed
        return False
