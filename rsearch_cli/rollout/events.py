"""What happens while a question is answered, as a series of events, live or replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.protocol.tag_stream import Piece, TagStream
from rsearch_cli.protocol.transcript import SEARCH_CLOSE, THINK
from rsearch_cli.rollout.answer import AgentAnswer, plan_as_json, result_as_json
from rsearch_cli.rollout.state import Observer
from rsearch_cli.types import NodeResult, SearchPlan, Trajectory


@dataclass(frozen=True, slots=True)
class Asked:
    """A question is about to be answered.

    Attributes:
        question: As the person wrote it.
        asked_as: The question that the agent answers in its place, or None if it is the same.
        note: Why it was or was not rewritten, or None.
    """

    question: str
    asked_as: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """More text that is neither plan nor answer; thoughts are separated by an empty line."""

    text: str


@dataclass(frozen=True, slots=True)
class PlanWritten:
    """A `<search>` block was closed.

    Attributes:
        round: Number of the search, from 0.
        plan: The plan, or None if it is not valid.
        problems: Why it is not valid.
    """

    round: int
    plan: SearchPlan | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultArrived:
    """A plan node was searched for, or its search failed."""

    round: int
    result: NodeResult


@dataclass(frozen=True, slots=True)
class AnswerText:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """A server's reply was interrupted: the text since the last results begins anew."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The question is answered; its `answer` is what counts, whatever was streamed."""

    answer: AgentAnswer


Event = Asked | Thinking | PlanWritten | ResultArrived | AnswerText | Restarted | Finished
OnEvent = Callable[[Event], None]


def event_as_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON; plans, results and answers as in `AgentAnswer.as_json`."""
    match event:
        case Asked(question, asked_as, note):
            return {"type": "asked", "question": question, "asked_as": asked_as, "note": note}
        case Thinking(text):
            return {"type": "thinking", "text": text}
        case PlanWritten(number, plan, problems):
            return {"type": "plan", "round": number, **plan_as_json(plan, problems)}
        case ResultArrived(number, result):
            return {"type": "result", "round": number, **result_as_json(result)}
        case AnswerText(text):
            return {"type": "answer", "text": text}
        case Restarted():
            return {"type": "restarted"}
        case Finished(answer):
            return {"type": "finished", **answer.as_json()}


class EventWriter:
    """Turns a rollout into events; implements `rollout.state.Observer`.

    White space around a block is not part of it.

    Args:
        on_event: Called with every event.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._rounds = 0
        self._has_thought = False
        self._turn = ""
        self._stream = TagStream()
        self._block: str | None = None
        self._blank = ""

    def on_text(self, text: str) -> None:
        """Report what is new since the last call."""
        if self._turn and text.startswith(THINK + self._turn):
            # That a server's template opened the thought only shows when its closing tag arrives.
            self._turn = THINK + self._turn
            self._stream.enter("think")
        elif not text.startswith(self._turn):
            self._on_event(Restarted())
            self._begin_turn()
        new, self._turn = text[len(self._turn) :], text
        self._report(self._stream.feed(new))

    def on_plan(self, reading: PlanReading) -> None:
        """Report a plan."""
        self.end_turn()
        self._on_event(PlanWritten(self._rounds, reading.plan, reading.problems))
        self._rounds += 1

    def on_result(self, result: NodeResult) -> None:
        """Report the result of a plan node."""
        self._on_event(ResultArrived(self._rounds - 1, result))

    def end_turn(self) -> None:
        """Report text that was held back because it could have been the start of a tag."""
        self._report(self._stream.finish())
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._turn = ""
        self._stream = TagStream()
        self._block = None
        self._blank = ""

    def _report(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.block == "search":
                self._block = None
            else:
                self._write(piece)

    def _write(self, piece: Piece) -> None:
        text = piece.text
        begins = piece.block != self._block
        if begins:
            text = text.lstrip()
            if not text:
                return
            self._block, self._blank = piece.block, ""
        # Trailing white space is held back, so that a block never ends in it.
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        if not shown:
            return
        if piece.block == "answer":
            self._on_event(AnswerText(shown))
            return
        if begins and self._has_thought:
            shown = f"\n\n{shown}"
        self._has_thought = True
        self._on_event(Thinking(shown))


def replay_rollout(trajectory: Trajectory, observer: Observer) -> None:
    """Show a finished rollout to an observer, as if it took place now; a turn is one text."""
    rounds = iter(trajectory.rounds)
    opening = trajectory.opening
    for segment in trajectory.segments:
        if segment.author != "model":
            continue
        observer.on_text(opening + segment.text)
        opening = ""
        round_ = next(rounds, None) if SEARCH_CLOSE in segment.text else None
        if round_ is None:
            continue
        observer.on_plan(PlanReading(round_.plan, round_.problems, ()))
        for result in round_.results:
            observer.on_result(result)


def replay_events(stored: AgentAnswer | Trajectory) -> Iterator[Event]:
    """Yield the events of a question that was answered before.

    The text of a block is one event. A trajectory alone has no `Finished`.
    """
    trajectory = stored if isinstance(stored, Trajectory) else stored.trajectory
    followed = stored.follow_up if isinstance(stored, AgentAnswer) else None
    if followed is None:
        yield Asked(trajectory.question.text)
    else:
        yield Asked(followed.question, followed.asked_as, followed.note)
    events: list[Event] = []
    writer = EventWriter(events.append)
    replay_rollout(trajectory, writer)
    writer.end_turn()
    yield from events
    if isinstance(stored, AgentAnswer):
        yield Finished(stored)
