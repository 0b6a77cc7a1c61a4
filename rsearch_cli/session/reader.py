"""The lines of a session: typed at a terminal, or read from a pipe.

Place in the path: under the session's loop. On failure: a history file that cannot be written is
said once, and the session keeps its history to itself.
"""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Protocol

import platformdirs

logger = logging.getLogger(__name__)


HISTORY = "infer-history"
PROMPT = "> "


class Reader(Protocol):
    """Where a session's lines come from."""

    def read(self) -> str | None:
        """The next entry, which may have several lines; None when the person leaves."""
        ...


def open_reader() -> Reader:
    """A prompt with history and editing at a terminal; plain lines from anything else."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return PromptReader(Path(platformdirs.user_data_dir("rsearch", appauthor=False)) / HISTORY)
    return PipeReader()


class PipeReader:
    """Takes a line of stdin as an entry; bytes that are no text become U+FFFD."""

    def __init__(self) -> None:
        if isinstance(sys.stdin, TextIOWrapper):
            # It reads ahead: else one bad byte would also cost the lines before it.
            sys.stdin.reconfigure(errors="replace")

    def read(self) -> str | None:
        """The next line; None at the end."""
        return sys.stdin.readline() or None


class PromptReader:
    """Reads entries at a terminal, by prompt_toolkit.

    Enter ends an entry, Alt-Enter begins a new line in it; pasted text keeps its lines. Ctrl-D
    leaves, and so does Ctrl-C when it comes twice while nothing is written.

    Args:
        history: File of all entries, the person's own to read.
    """

    def __init__(self, history: Path) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()
        keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
        keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
        self._session: Any = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=" " * len(PROMPT),
            key_bindings=keys,
            history=_open_history(history),
        )

    def read(self) -> str | None:
        """The next entry; None when the person leaves."""
        warned = False
        while True:
            try:
                return str(self._session.prompt())
            except EOFError:
                return None
            except KeyboardInterrupt:
                if self._session.default_buffer.text:
                    warned = False
                elif warned:
                    return None
                else:
                    warned = True
                    logger.info("Ctrl-C once more leaves, and so does Ctrl-D")


def _open_history(path: Path) -> Any:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(str(path))
    except OSError as error:
        logger.warning(f"no history is kept: {path} ({error.strerror})")
        return InMemoryHistory()
