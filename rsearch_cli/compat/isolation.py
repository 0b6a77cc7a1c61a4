"""Keeps libraries from printing to the terminal and from changing the process as a whole."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


class OwnEnvironment:
    """The environment variables of one library.

    They are set only inside `applied()`, which records the changes of the library, so that child
    processes started elsewhere do not inherit them.
    """

    def __init__(self) -> None:
        self._changes: dict[str, str | None] = {}
        self._depth = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the recorded variables inside the block, which may be nested."""
        if self._depth:
            yield
            return
        outside = dict(os.environ)
        self._depth += 1
        _apply(self._changes)
        try:
            yield
        finally:
            self._depth -= 1
            names = outside.keys() | os.environ.keys()
            self._changes = {
                name: os.environ.get(name)
                for name in names
                if os.environ.get(name) != outside.get(name)
            }
            _apply({name: outside.get(name) for name in self._changes})


def _apply(changes: dict[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class _LogStream(io.TextIOBase):
    """A text stream that logs each line at debug level."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.strip():
                self._logger.debug("%s", line.rstrip())
        return len(text)


@contextmanager
def stdout_to_log(library: str) -> Iterator[None]:
    """Send what is printed to stdout inside the block to the debug log; stdout is for results."""
    with redirect_stdout(_LogStream(logging.getLogger(f"rsearch_cli.{library}"))):
        yield


@contextmanager
def output_to_log(library: str) -> Iterator[None]:
    """Send stdout and stderr to the debug log inside a block in which only the library writes."""
    with stdout_to_log(library), redirect_stderr(sys.stdout):
        yield


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Restore process-wide state after the block, such as an import.

    Covers the streams and their hooks, handlers and level of the root logger, the warning filters,
    and the handlers of SIGINT, SIGTERM and SIGHUP.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, sys.displayhook, sys.stdout, sys.stderr
    ends = [s for name in ("SIGINT", "SIGTERM", "SIGHUP") if (s := getattr(signal, name, None))]
    on_signal = {number: signal.getsignal(number) for number in ends}
    with warnings.catch_warnings():
        try:
            yield
        finally:
            sys.excepthook, sys.displayhook, sys.stdout, sys.stderr = hooks
            root.handlers[:] = handlers
            root.setLevel(level)
            for number, handler in on_signal.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
