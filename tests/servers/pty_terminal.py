"""Runs an interactive command on a pseudo-terminal: send keys, read the screen.

POSIX only: Windows has no `pty`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from loaded_process import LoadedProcess

CONTROL_C, CONTROL_D, ENTER = "\x03", "\x04", "\r"

# Escape sequences that terminals obey: CSI, OSC, and the two-character ones.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;?>=]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>78])"
)


class Terminal:
    """Runs a command as the foreground process of a terminal of 100 columns and 40 lines."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, loaded: bool = False
    ) -> None:
        """Name what runs, and its environment; entering the `with` block starts it.

        Args:
            command: The command line.
            environment: All variables but those of the terminal.
            loaded: Start a `LoadedProcess`.
        """
        self._command = list(command)
        self._loaded = loaded
        # A reply to «where is the cursor?» is the emulator's task, and there is none here.
        self._environment = {**environment, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self._raw = b""
        self._news = threading.Condition()
        self._seen = 0

    def __enter__(self) -> Self:
        self._keys, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        start = partial(LoadedProcess, take_terminal=True)
        if not self._loaded:
            start = partial(subprocess.Popen, preexec_fn=take_terminal)
        self.process = start(
            self._command, stdin=inside, stdout=inside, stderr=inside, env=self._environment
        )
        os.close(inside)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        os.close(self._keys)

    @property
    def raw(self) -> str:
        """All that was written, escape sequences included."""
        with self._news:
            return self._raw.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was written, without them."""
        return _ESCAPES.sub("", self.raw).replace("\r", "")

    def type(self, keys: str) -> None:
        """Press keys."""
        data = keys.encode()
        while data:
            data = data[os.write(self._keys, data[:512]) :]

    def paste(self, text: str) -> None:
        """Paste text the way emulators do it: in brackets, line ends as Enter."""
        self.type("\x1b[200~" + text.replace("\n", "\r") + "\x1b[201~")

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        """Wait for a text behind the one that was last waited for.

        Returns:
            What was written between the two.

        Raises:
            AssertionError: It did not come; the message has what came instead.
        """
        until = time.monotonic() + seconds
        with self._news:
            while (at := self.text.find(text, self._seen)) < 0:
                if time.monotonic() > until or not self._reader.is_alive():
                    raise AssertionError(f"no {text!r} in {self.text[self._seen :]!r}")
                self._news.wait(0.1)
        before, self._seen = self.text[self._seen : at], at + len(text)
        return before

    def wait_until_left(self, seconds: float = 30.0) -> int:
        """The exit code of the command, once it has ended."""
        return self.process.wait(seconds)

    def _read(self) -> None:
        # Linux ends a terminal whose process has gone with an error, not with an empty read.
        with contextlib.suppress(OSError):
            while data := os.read(self._keys, 65536):
                with self._news:
                    self._raw += data
                    self._news.notify_all()
