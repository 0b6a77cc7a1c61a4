"""Shows a stored answer as if it were written now."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence

from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.rollout.events import replay_rollout
from rsearch_cli.session.screen import Screen
from rsearch_cli.session.stored import StoredAnswer
from rsearch_cli.types import FollowUp, NodeResult

_WORD_SECONDS = 0.04
_RESULT_SECONDS = 0.4
_MOST_STEPS = 150
"""Steps in which a turn is written; in longer ones, a step has several words."""

_WORD = re.compile(r"\s*\S+\s*")


def watch(
    answers: Sequence[StoredAnswer], screen: Screen, pause: Callable[[float], None] | None = None
) -> None:
    """Show stored answers one after another, at the pace of a quick model.

    Args:
        answers: The answers.
        screen: Shows them.
        pause: Waits for some seconds; by default, only at a terminal.
    """
    pause = pause or (time.sleep if sys.stdout.isatty() else lambda seconds: None)
    for number, stored in enumerate(answers):
        if number:
            screen.print()
            pause(_RESULT_SECONDS)
        answer = stored.answer
        screen.print(f"> {answer.question}", bold=True)
        screen.show_question(answer.follow_up or FollowUp(answer.question))
        replay_rollout(answer.trajectory, _Paced(screen, pause))
        if (error := answer.trajectory.error) is not None:
            screen.give_up()
            screen.print(f"failed: {error}", fg="red")
        else:
            screen.finish(answer)
        if stored.remark:
            screen.print(stored.remark, dim=True)


class _Paced:
    """Passes a rollout on to a screen, word by word."""

    def __init__(self, screen: Screen, pause: Callable[[float], None]) -> None:
        self._screen = screen
        self._pause = pause

    def on_text(self, text: str) -> None:
        """Show a text as it grows."""
        ends = [word.end() for word in _WORD.finditer(text)]
        step = -(-len(ends) // _MOST_STEPS) or 1
        for end in ends[step - 1 :: step]:
            self._screen.on_text(text[:end])
            self._pause(_WORD_SECONDS)
        self._screen.on_text(text)

    def on_plan(self, reading: PlanReading) -> None:
        """Show a plan, and wait as if it were executed."""
        self._screen.on_plan(reading)
        self._pause(_RESULT_SECONDS)

    def on_result(self, result: NodeResult) -> None:
        """Show a result."""
        self._screen.on_result(result)
        self._pause(_RESULT_SECONDS)
