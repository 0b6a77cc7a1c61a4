"""The program's messages on stderr: one `logging` handler, which the app installs and Rich draws.

Modules log to `logging.getLogger(__name__)`: progress as info, what is wrong as a warning. Used as
a library, the package prints nothing unless its user configures logging.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from rsearch_cli.distributed import is_main
from rsearch_cli.streams import open_console
from rsearch_cli.terminal import LINE_LIMIT, printable, shorten

if TYPE_CHECKING:
    from rich.console import Console

PACKAGE = "rsearch_cli"

_FOREIGN_BREAK = re.compile(r"\n(?!  )")
_PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "rsearch: "}
_STYLES = {logging.DEBUG: "dim", logging.WARNING: "yellow", logging.ERROR: "red"}


class StderrHandler(logging.Handler):
    """Writes a record to stderr as one line, if anybody reads it.

    Further lines of a message are indented, and any other line break becomes a space, so that text
    from outside cannot pass for a message of ours. Where several processes train together, the main
    one writes messages; the others write only errors.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this process writes the record."""
        return (record.levelno >= logging.ERROR or is_main()) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, and below it the traceback that belongs to it."""
        with suppress(OSError, ValueError):  # the latter for a stream that is closed
            sys.stderr.write("".join(self._draw(line, record) for line in _lines(record)))
            sys.stderr.flush()

    @cached_property
    def _console(self) -> Console:
        return open_console(stderr=True)

    def _draw(self, line: str, record: logging.LogRecord) -> str:
        """One line with its line break, coloured on a terminal."""
        # Drawn here and written to `sys.stderr`, where a live display may stand in between.
        with self._console.capture() as drawn:
            self._console.print(line, style=_STYLES.get(record.levelno), soft_wrap=True)
        return drawn.get()


class OtherLibraries(logging.Handler):
    """Passes on what other libraries log: errors as warnings of one line, the rest to debugging.

    Without a handler of the root logger, Python or `logging.basicConfig` would print all of it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as a message of this package."""
        message = f"{record.name}: {record.getMessage()}"
        logger = logging.getLogger(f"{PACKAGE}.libraries")
        is_error = record.levelno >= logging.ERROR
        if is_error:
            logger.warning("%s", message.partition("\n")[0])
        if record.exc_info or not is_error:
            logger.debug("%s", message, exc_info=record.exc_info)


def _lines(record: logging.LogRecord) -> list[str]:
    message = _FOREIGN_BREAK.sub(" ", printable(record.getMessage()))
    if record.levelno < logging.INFO:
        prefix = f"{logging.Formatter().formatTime(record, '%H:%M:%S')} {record.name}: "
    else:
        prefix = _PREFIXES.get(record.levelno, "")
    text = prefix + message
    if record.exc_info:
        text += "\n" + printable(logging.Formatter().formatException(record.exc_info))
    return [shorten(line, LINE_LIMIT) for line in text.split("\n")]


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the package's messages on stderr for a `with` block, and errors of other libraries."""
    logger, root = logging.getLogger(PACKAGE), logging.getLogger()
    handler, level, propagate = StderrHandler(), logger.level, logger.propagate
    others = OtherLibraries()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # A library may give the root logger a handler of its own.
    logger.propagate = False
    root.addHandler(others)
    try:
        yield
    finally:
        root.removeHandler(others)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def show_debug_log() -> None:
    """Show debug messages too, and with them what other libraries print."""
    logging.getLogger(PACKAGE).setLevel(logging.DEBUG)
