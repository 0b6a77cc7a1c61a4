"""The terminal is restored even if a signal comes while it is being changed."""

from __future__ import annotations

import os
import sys

import pytest

from rsearch_cli.errors import Terminated
from rsearch_cli.session import keyboard

termios = pytest.importorskip("termios", reason="needs a terminal")


def test_a_signal_just_after_the_echo_is_off_leaves_it_on(monkeypatch):
    import pty
    import signal

    main, side = pty.openpty()
    with open(side, "r+b", buffering=0) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(keyboard, "_in_foreground", lambda number: True)
        before = termios.tcgetattr(side)
        change = termios.tcsetattr

        def change_and_end(*arguments):
            monkeypatch.setattr(termios, "tcsetattr", change)
            change(*arguments)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(termios, "tcsetattr", change_and_end)
        with pytest.raises(Terminated), keyboard.typing_ahead():
            pass
        assert termios.tcgetattr(side) == before
    os.close(main)
