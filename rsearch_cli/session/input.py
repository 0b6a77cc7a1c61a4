"""Input of a session: lines typed at a terminal, or read from a pipe."""

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


class LineInput(Protocol):
    """Source of a session's entries."""

    def read(self) -> str | None:
        """Return the next entry, which may span lines; None at the end."""
        ...


def open_input() -> LineInput:
    """Open a prompt with history and editing at a terminal; plain lines otherwise."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return PromptInput(Path(platformdirs.user_data_dir("rsearch", appauthor=False)) / HISTORY)
    return PipeInput()


class PipeInput:
    """Reads each line of stdin as an entry; undecodable bytes become U+FFFD."""

    def __init__(self) -> None:
        if isinstance(sys.stdin, TextIOWrapper):
            # Decoding reads ahead: an error would also lose the lines before the bad byte.
            sys.stdin.reconfigure(errors="replace")

    def read(self) -> str | None:
        """Return the next line; None at the end."""
        return sys.stdin.readline() or None


class PromptInput:
    """Reads entries at a terminal with prompt_toolkit.

    Enter ends an entry, Alt-Enter inserts a line break; pasted text keeps its lines. Ctrl-D leaves,
    as does Ctrl-C pressed twice at an empty prompt.

    Args:
        history: File of all entries, readable by its owner only.
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
        """Return the next entry; None on leaving."""
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
                    logger.info("press Ctrl-C again or Ctrl-D to leave")


def _open_history(path: Path) -> Any:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return FileHistory(str(path))
    except OSError as error:
        logger.warning(f"the history is not saved: {path}: {error.strerror}")
        return InMemoryHistory()
