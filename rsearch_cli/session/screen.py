"""Terminal output of a session: the rollout's observer, styled on a terminal and plain elsewhere.

Text of models and sources is made printable; markup in it has no effect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.protocol.tag_stream import Piece, TagStream
from rsearch_cli.protocol.transcript import THINK
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.citations import Citation
from rsearch_cli.streams import write_stdout
from rsearch_cli.terminal import on_one_line, printable
from rsearch_cli.types import FollowUp, NodeResult, Paragraph, SearchPlan

_INDENT = "  "
_SNIPPET_CHARS = 160
_QUOTED_CHARS = 60
_CITED_AT_ONCE = 5
_CONTEXT = 16

# Styles of the blocks of a transcript; text outside them is shown as it is.
_STYLES: dict[str, dict[str, Any]] = {
    "think": {"dim": True},
    "answer": {"bold": True},
    "result": {"fg": "red"},
}
_HEADINGS = {
    "think": "thinking",
    "answer": "answer",
    "result": "result invented by the model",
    "": "",
}


class Screen:
    """Shows one question after another; implements `rollout.state.Observer`.

    Attributes:
        styled: Whether to use colours: stdout is a terminal that has them, and NO_COLOR is not set.
    """

    def __init__(self) -> None:
        dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
        self.styled = sys.stdout.isatty() and not dumb
        self._at_line_start = True
        self._written = ""
        self._turn = ""
        self._stream = TagStream()
        self._block: str | None = None
        self._blank = ""

    def print(self, text: str = "", **style: Any) -> None:
        """Print a line; ends the current line first."""
        self._end_line()
        self._write(on_one_line(text) + "\n", **style)

    def show_question(self, asked: FollowUp) -> None:
        """Show how a follow-up question is asked, or why it is asked as typed."""
        if asked.asked_as is not None:
            self._end_line()
            self._write("asked as  ", fg="cyan")
            self._write(on_one_line(asked.asked_as) + "\n")
        elif asked.note is not None:
            self.print(asked.note, fg="yellow")

    def on_text(self, text: str) -> None:
        """Show what is new since the last call."""
        if text.startswith(THINK + self._turn) and self._turn:
            # That a server's template opened the thought only shows when its closing tag arrives.
            self._turn = THINK + self._turn
            self._block = "think"
            self._stream.enter("think")
        elif not text.startswith(self._turn):
            self.print("the reply was interrupted and starts over", fg="yellow")
            self._begin_turn()
        new, self._turn = text[len(self._turn) :], text
        for piece in self._stream.feed(new):
            self._show(piece)

    def on_plan(self, reading: PlanReading) -> None:
        """Show the plan as a tree, or why it is not valid."""
        self._end_turn()
        if reading.plan is not None:
            self.print("plan", fg="cyan")
            for line in plan_lines(reading.plan):
                self.print(_INDENT + line)
            self.print("results", fg="cyan")
            return
        problem = flatten(reading.problems[0])
        self.print(f"plan not valid: {problem}; the agent answers from what it has", fg="yellow")

    def on_result(self, result: NodeResult) -> None:
        """Show the result of a plan node."""
        for line in result_lines(result):
            self.print(_INDENT + line, fg="yellow" if result.error else None)

    def finish(self, answer: AgentAnswer) -> None:
        """Complete an answer: citation numbers, the long answer, the passages, and the cost."""
        last_block = self._end_turn()
        cited, text = answer.citations, answer.answer
        marks = "".join(f"[{c.number}]" for c in cited if c.contains_answer)
        if text is None:
            self.print(_explain_no_answer(answer), fg="yellow")
        elif last_block != "answer":
            self.print(f"answer  {text} {marks}", bold=True)
        elif marks:
            self._write(f" {marks}", fg="cyan")
        self.show_paragraph(answer)
        numbers = set(range(1, _CITED_AT_ONCE + 1))
        if answer.paragraph is not None:
            numbers.update(n for s in answer.paragraph.sentences for n in s.numbers)
        shown = [citation for citation in cited if citation.number in numbers]
        for citation in shown:
            self.print(_INDENT + citation_line(citation))
        if len(cited) > len(shown):
            self.print(f"{_INDENT}and {len(cited) - len(shown)} more: /sources", dim=True)
        self.print(answer.cost, dim=True)

    def give_up(self) -> None:
        """End the output of an interrupted answer."""
        self._begin_turn()
        self._end_line()

    def show_paragraph(self, answer: AgentAnswer) -> None:
        """Show the long answer, if there is one, and below it what is wrong with its sentences."""
        paragraph = answer.paragraph or Paragraph(())
        if paragraph.note is not None:
            self.print(paragraph.note, fg="yellow")
        if not paragraph.sentences:
            return
        self._end_line()
        self._write("in full  ", fg="cyan")
        for number, sentence in enumerate(paragraph.sentences):
            text = " " * (number > 0) + on_one_line(sentence.text)
            self._write(text, fg=None if sentence.supported else "yellow")
            self._write(f" {sentence.marks}", fg="cyan")
        for sentence in paragraph.sentences:
            if sentence.problem is not None:
                start = shorten(flatten(sentence.text), _QUOTED_CHARS)
                self.print(f'{_INDENT}"{start}": {sentence.problem}', fg="yellow")
            if sentence.dropped:
                numbers = ", ".join(map(str, sentence.dropped))
                self.print(f"{_INDENT}there is no passage {numbers}", fg="yellow")

    def _begin_turn(self) -> None:
        self._turn = ""
        self._stream = TagStream()
        self._block = None
        self._blank = ""

    def _end_turn(self) -> str | None:
        """Show text held back; return the block that was shown last."""
        for piece in self._stream.finish():
            self._show(piece)
        last = self._block
        self._begin_turn()
        return last

    def _show(self, piece: Piece) -> None:
        """Print a piece under the heading of its block; plans are shown by `on_plan`."""
        if piece.block == "search":
            return
        text = piece.text
        if piece.block != self._block:
            if not text.strip():
                return
            self._end_line()
            self._block, self._blank = piece.block, ""
            if heading := _HEADINGS[piece.block]:
                self._write(f"{heading}  ", fg="cyan")
            text = text.lstrip()
        # Trailing whitespace is held back, so that a block never ends in it.
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        if shown:
            self._write(shown, **_STYLES.get(piece.block, {}))

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._write("\n")
        self._block = None

    def _write(self, text: str, **style: Any) -> None:
        # The text before decides whether a joiner belongs to an emoji that arrives in pieces.
        before, self._written = self._written, (self._written + text)[-_CONTEXT:]
        text = printable(text, before)
        self._at_line_start = text.endswith("\n")
        if self.styled and any(style.values()):
            lines = (typer.style(line, **style) if line else "" for line in text.split("\n"))
            text = "\n".join(lines)
        write_stdout(text)


def plan_lines(plan: SearchPlan) -> list[str]:
    """Format a plan as a tree: each node under its first parent, with further parents named."""
    nodes = {node.label: node for node in plan.nodes}
    lines: list[str] = []

    def grow(label: str, branch: str, stem: str) -> None:
        node, others = nodes[label], plan.parents(label)[1:]
        after = f", also after {', '.join(others)}" if others else ""
        lines.append(f"{branch}{label}: {node.query} ({node.source}){after}")
        children = [n for n in nodes if plan.parents(n)[:1] == (label,)]
        for child in children:
            last = child == children[-1]
            grow(child, stem + ("└─ " if last else "├─ "), stem + ("   " if last else "│  "))

    for node in plan.nodes:
        if not plan.parents(node.label):
            grow(node.label, "", "")
    return lines


def result_lines(result: NodeResult) -> Iterator[str]:
    """Format the result of a plan node, one line per passage."""
    label = result.node.label
    if result.expansion:
        yield f"{label}: query expanded by {', '.join(map(flatten, result.expansion))}"
    if result.error is not None:
        yield f"{label}: search failed ({flatten(result.error)})"
    elif not result.passages:
        yield f"{label}: nothing found"
    for passage in result.passages:
        text = shorten(flatten(passage.text), _SNIPPET_CHARS)
        title = flatten(passage.title)
        repeated = not title or text.casefold().startswith(title.casefold())
        yield f"{label}: {text}" if repeated else f"{label}: {title} — {text}"
    for problem in result.unread:
        yield f"{label}: not read: {flatten(problem)}"


def citation_line(citation: Citation) -> str:
    """Format number, title and id of a passage; the id is omitted where it is the title."""
    passage = citation.passage
    title = flatten(passage.title) or shorten(citation.shown, _SNIPPET_CHARS)
    place = "" if passage.id == passage.title else f" ({flatten(passage.id)})"
    return f"[{citation.number}] {title}{place}"


def trace_lines(answer: AgentAnswer) -> list[tuple[str, str]]:
    """Return the transcript as `(author, line)`; author is `prompt`, `system` or `model`."""
    trajectory = answer.trajectory
    parts: Sequence[tuple[str, str]] = [
        ("prompt", trajectory.opening),
        *((segment.author, segment.text) for segment in trajectory.segments),
    ]
    return [
        (author, line)
        for author, text in parts
        for line in printable(text).strip("\n").split("\n")
        if text
    ]


def _explain_no_answer(answer: AgentAnswer) -> str:
    texts = (s.text for s in answer.trajectory.segments if s.author == "model")
    if not "".join(texts).strip():
        return (
            "no answer: the model wrote nothing; models with hidden thinking need more tokens "
            f"(rollout.max_new_tokens is {answer.recipe.rollout.max_new_tokens})"
        )
    if answer.trajectory.stop == "length":
        most = answer.recipe.rollout.max_new_tokens
        room = answer.recipe.policy.max_seq_length
        return (
            "no answer: the token limit was reached (rollout.max_new_tokens is "
            f"{most}, policy.max_seq_length {room})"
        )
    return "no answer: the model stopped without an <answer> block"
