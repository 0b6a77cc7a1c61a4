"""The screen: what a person sees while a question is answered, and of it afterwards.

Place in the path: the rollout's observer; it writes to stdout, in styles where that is a terminal
and as plain text elsewhere. On failure: a closed pipe raises `BrokenPipeError`. What models and
sources wrote is made printable: no markup is obeyed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.protocol.plan import PlanReading
from rsearch_cli.protocol.stream import Piece, TagStream
from rsearch_cli.protocol.transcript import THINK
from rsearch_cli.session.citations import Citation
from rsearch_cli.session.exchange import Exchange
from rsearch_cli.streams import write_stdout
from rsearch_cli.terminal import on_one_line, printable
from rsearch_cli.types import NodeResult, SearchPlan

_INDENT = "  "
_SNIPPET_CHARS = 160
_CITED_AT_ONCE = 5
_CONTEXT = 16

# How the blocks of a transcript look; what stands outside of them is shown as it is.
_STYLES: dict[str, dict[str, Any]] = {
    "think": {"dim": True},
    "answer": {"bold": True},
    "result": {"fg": "red"},
}
_HEADINGS = {
    "think": "thinking",
    "answer": "answer",
    "result": "a result that it made up",
    "": "",
}


class Screen:
    """Shows one question after another.

    Attributes:
        styled: Whether colours are wanted: stdout is a terminal that has them, and NO_COLOR is not
            set.
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

    def say(self, text: str = "", **style: Any) -> None:
        """Write a line, below whatever stands there."""
        self._end_line()
        self._write(on_one_line(text) + "\n", **style)

    def on_text(self, text: str) -> None:
        """Show what has come since the last call (see `drafts.Observer`)."""
        if text.startswith(THINK + self._turn) and self._turn:
            # Only the tag that closes a thought shows that a server's template had opened it.
            self._turn = THINK + self._turn
            self._block = "think"
            self._stream.enter("think")
        elif not text.startswith(self._turn):
            self.say("the reply broke off and begins anew", fg="yellow")
            self._begin_turn()
        new, self._turn = text[len(self._turn) :], text
        for piece in self._stream.feed(new):
            self._show(piece)

    def on_plan(self, reading: PlanReading) -> None:
        """Show the plan as a tree, or why there is none."""
        self._end_turn()
        if reading.plan is not None:
            self.say("plan", fg="cyan")
            for line in plan_lines(reading.plan):
                self.say(_INDENT + line)
            self.say("results", fg="cyan")
            return
        problem = flatten(reading.problems[0])
        self.say(f"plan not valid: {problem}; the agent answers from what it has", fg="yellow")

    def on_result(self, result: NodeResult) -> None:
        """Show what a node has found."""
        for line in result_lines(result):
            self.say(_INDENT + line, fg="yellow" if result.error else None)

    def finish(self, exchange: Exchange) -> None:
        """Put the numbers behind the answer, list the passages, and say what it took."""
        last_block = self._end_turn()
        cited, answer = exchange.citations, exchange.trajectory.answer
        marks = "".join(f"[{c.number}]" for c in cited if c.holds_answer)
        if answer is None:
            self.say(_say_why_none(exchange), fg="yellow")
        elif last_block != "answer":
            self.say(f"answer  {answer} {marks}", bold=True)
        elif marks:
            self._write(f" {marks}", fg="cyan")
        for citation in cited[:_CITED_AT_ONCE]:
            self.say(_INDENT + citation_line(citation))
        if len(cited) > _CITED_AT_ONCE:
            self.say(f"{_INDENT}and {len(cited) - _CITED_AT_ONCE} more: /sources", dim=True)
        self.say(exchange.cost, dim=True)

    def give_up(self) -> None:
        """End what was under way, wherever it stands."""
        self._begin_turn()
        self._end_line()

    def _begin_turn(self) -> None:
        self._turn = ""
        self._stream = TagStream()
        self._block = None
        self._blank = ""

    def _end_turn(self) -> str | None:
        """Show what was held back; the block that the last of it stands in."""
        for piece in self._stream.finish():
            self._show(piece)
        last = self._block
        self._begin_turn()
        return last

    def _show(self, piece: Piece) -> None:
        """Print a piece under the heading of its block; a plan waits until it is whole."""
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
        # Blanks wait for what follows them, so that none stand at the end of a block.
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
        # What came before decides whether a joiner belongs to an emoji that comes in pieces.
        before, self._written = self._written, (self._written + text)[-_CONTEXT:]
        text = printable(text, before)
        self._at_line_start = text.endswith("\n")
        if self.styled and any(style.values()):
            lines = (typer.style(line, **style) if line else "" for line in text.split("\n"))
            text = "\n".join(lines)
        write_stdout(text)


def plan_lines(plan: SearchPlan) -> list[str]:
    """A plan as a tree: a node stands below the first one it waits for, and names the others."""
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
    """What a node has found, a line a passage."""
    label = result.node.label
    if result.expansion:
        yield f"{label}: asked with {', '.join(map(flatten, result.expansion))}"
    if result.error is not None:
        yield f"{label}: search failed ({flatten(result.error)})"
    elif not result.passages:
        yield f"{label}: nothing found"
    for passage in result.passages:
        text = shorten(flatten(passage.text), _SNIPPET_CHARS)
        title = flatten(passage.title)
        repeated = not title or text.casefold().startswith(title.casefold())
        yield f"{label}: {text}" if repeated else f"{label}: {title} — {text}"


def citation_line(citation: Citation) -> str:
    """Number, title and address of a passage; some corpora have titles for addresses."""
    passage = citation.passage
    title = flatten(passage.title) or shorten(citation.shown, _SNIPPET_CHARS)
    place = "" if passage.id == passage.title else f" ({flatten(passage.id)})"
    return f"[{citation.number}] {title}{place}"


def trace_lines(exchange: Exchange) -> list[tuple[str, str]]:
    """The transcript as `(author, line)`: `prompt` and `system` were inserted, `model` trained."""
    trajectory = exchange.trajectory
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


def _say_why_none(exchange: Exchange) -> str:
    texts = (s.text for s in exchange.trajectory.segments if s.author == "model")
    if not "".join(texts).strip():
        return (
            "no answer: the model wrote nothing; one that thinks unseen needs more tokens "
            f"(rollout.max_new_tokens is {exchange.recipe.rollout.max_new_tokens})"
        )
    if exchange.trajectory.stop == "length":
        most = exchange.recipe.rollout.max_new_tokens
        room = exchange.recipe.policy.max_seq_length
        return (
            "no answer: the tokens ran out; rollout.max_new_tokens is "
            f"{most}, policy.max_seq_length {room}"
        )
    return "no answer: the model ended without an <answer> block"
