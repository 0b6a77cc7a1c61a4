"""stdout and stderr, fit for any text, any encoding and any reader.

A stderr that nobody reads any more is dropped, so it never ends a run; a stdout that nobody reads
is a `BrokenPipeError`.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from rsearch_cli.errors import RsearchError
from rsearch_cli.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

_CLOSED = (errno.EPIPE, errno.EIO, errno.ENXIO)
_ENCODING_ERRORS = "rsearch-readable"
_ASCII = str.maketrans("•·…–—│─┌┐└┘├┤┬┴┼⟦⟧→▁▂▃▄▅▆▇█", "**.--|-+++++++++[]>........")


def prepare_streams() -> None:
    """Prepare the streams of this process for any text and any reader; called once, at the start.

    A closed standard stream becomes the null device, so that no file is opened under its number.
    """
    codecs.register_error(_ENCODING_ERRORS, _make_readable)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _discard(number)
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ENCODING_ERRORS)
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        sys.stderr = _LastingStderr(
            sys.stderr.buffer, encoding, _ENCODING_ERRORS, line_buffering=True
        )


def echo(*lines: str) -> None:
    """Write lines of a result to stdout; a line break within one becomes a space.

    Raises:
        BrokenPipeError: Nobody reads stdout.
        RsearchError: stdout cannot be written for another reason.
    """
    shown = (printable(line).replace("\n", " ") for line in lines)
    write_stdout("".join(f"{line}\n" for line in shown))


def write_stdout(text: str) -> None:
    """Write text to stdout unchanged; it must be `printable`, and may be styled.

    Raises:
        BrokenPipeError: Nobody reads stdout.
        RsearchError: stdout cannot be written for another reason.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes stdout again at exit, and would report the error a second time.
        _discard(sys.stdout)
        if error.errno in _CLOSED:
            raise BrokenPipeError(*error.args) from error
        raise RsearchError(
            f"the result could not be written to stdout: {error.strerror}"
        ) from error


def open_console(**options: Any) -> Console:
    """Return a Rich console without markup that prints only what is `printable`.

    Args:
        options: Options of Rich's console.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                clean = segment.text if segment.control else printable(segment.text)
                yield segment._replace(text=clean)

    return PlainConsole(markup=False, highlight=False, emoji=False, **options)


class _LastingStderr(io.TextIOWrapper):
    """A stderr that drops what it cannot write, such as after its reader has gone."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _discard(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _discard(self)


def _discard(stream: IO[str] | int) -> None:
    """Redirect a stream to the null device."""
    with suppress(OSError, ValueError):  # it has no number, or is closed
        number = stream if isinstance(stream, int) else stream.fileno()
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


def _make_readable(error: UnicodeError) -> tuple[str, int]:
    """Encode error handler: similar ASCII characters for lines and marks, escapes for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
