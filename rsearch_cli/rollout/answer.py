"""One answered question, and its forms: JSON, Markdown, and a file of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.protocol.plan import render_plan
from rsearch_cli.protocol.transcript import read_transcript
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.citations import Citation, cite
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.terminal import escape_markdown, printable
from rsearch_cli.types import (
    FollowUp,
    NodeResult,
    Paragraph,
    Passage,
    SearchPlan,
    SearchRound,
    Trajectory,
)


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """An answered question.

    Attributes:
        trajectory: The rollout.
        recipe: The settings of the rollout.
        seconds: Wall-clock time; 0 if it is not known.
        usd: What was paid for it.
        follow_up: How the question was asked, if it is part of a conversation.
        paragraph: The long answer, if one was requested.
    """

    trajectory: Trajectory
    recipe: Recipe
    seconds: float
    usd: float
    follow_up: FollowUp | None = None
    paragraph: Paragraph | None = None

    @property
    def question(self) -> str:
        """The question as typed."""
        return self.follow_up.question if self.follow_up else self.trajectory.question.text

    @property
    def asked_as(self) -> str | None:
        """The question that was asked instead, or None for the one that was typed."""
        return self.follow_up.asked_as if self.follow_up else None

    @property
    def answer(self) -> str | None:
        """Text of the last `<answer>` block, or None."""
        return self.trajectory.answer

    @property
    def text(self) -> str:
        """The answer, and below it the paragraph, if there is one; "" without an answer."""
        long = self.paragraph.text if self.paragraph else ""
        return "\n\n".join(part for part in (self.answer, long) if part)

    @property
    def plan(self) -> SearchPlan | None:
        """The last valid plan, or None."""
        plans = [round_.plan for round_ in self.trajectory.rounds if round_.plan is not None]
        return plans[-1] if plans else None

    @property
    def passages(self) -> tuple[Passage, ...]:
        """The passages that were found, without duplicates, likeliest evidence first."""
        return tuple(citation.passage for citation in self.citations)

    @property
    def thoughts(self) -> tuple[str, ...]:
        """Texts of the `<think>` blocks."""
        trajectory = self.trajectory
        protocol = self.recipe.protocol
        return read_transcript(trajectory.opening, trajectory.segments, protocol).thoughts

    @property
    def citations(self) -> list[Citation]:
        """The passages that the model was given, numbered."""
        chars = self.recipe.search.passage_chars
        return cite(self.trajectory.rounds, self.trajectory.answer, chars)

    @property
    def searches(self) -> int:
        """Number of searches."""
        return sum(len(round_.results) for round_ in self.trajectory.rounds)

    @property
    def tokens(self) -> int:
        """Number of tokens that the model generated."""
        return self.trajectory.generated_tokens

    @property
    def cost(self) -> str:
        """Searches, tokens, pages not read if any, seconds if known, dollars if any, as text."""
        failed, unread = self.trajectory.failed_searches, self.trajectory.failed_reads
        words = [
            count(self.searches, "search", "searches") + (f" ({failed} failed)" if failed else ""),
            count(self.tokens, "token", "tokens"),
            *([f"{count(unread, 'page', 'pages')} not read"] if unread else []),
            *([f"{self.seconds:.1f} s"] if self.seconds else []),
        ]
        return ", ".join([*words, f"${self.usd:.4f}"] if self.usd else words)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON, in the format of `rsearch infer --json`."""
        return {
            "question": self.question,
            "asked_as": self.asked_as,
            "note": self.follow_up.note if self.follow_up else None,
            "thinking": list(self.thoughts),
            "plans": [
                plan_as_json(round_.plan, round_.problems)
                | {"results": [result_as_json(result) for result in round_.results]}
                for round_ in self.trajectory.rounds
            ],
            "answer": self.trajectory.answer,
            "paragraph": _paragraph_as_json(self.paragraph),
            "citations": [citation.as_json() for citation in self.citations],
            "stop": self.trajectory.stop,
            "searches": self.searches,
            "failed_searches": self.trajectory.failed_searches,
            "failed_reads": self.trajectory.failed_reads,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "usd": self.usd,
        }

    def as_markdown(self) -> str:
        """Return everything as Markdown; text of models and sources is escaped."""
        parts = [f"## {escape_markdown(self.question)}"]
        if self.follow_up and (told := self.follow_up.describe()):
            parts.append(f"*{escape_markdown(told)}*")
        parts += [f"> {escape_markdown(thought)}" for thought in self.thoughts]
        for round_ in self.trajectory.rounds:
            parts.append(_plan_as_markdown(round_))
            parts += ["\n".join(_result_as_markdown(result)) for result in round_.results]
        cited = self.citations
        marks = "".join(f"\\[{c.number}\\]" for c in cited if c.contains_answer)
        answer = self.trajectory.answer
        parts.append(
            "No answer." if answer is None else f"**{escape_markdown(answer)}** {marks}".rstrip()
        )
        if self.paragraph is not None:
            parts.append(escape_markdown(self.paragraph.text or self.paragraph.note or ""))
        listed = (
            f"{c.number}. {escape_markdown(c.passage.title)} ({escape_markdown(c.passage.id)})"
            for c in cited
        )
        parts.append("\n".join(listed))
        parts.append(self.cost)
        return "\n\n".join(part for part in parts if part) + "\n"


def save_answers(path: Path, answers: Sequence[AgentAnswer]) -> str | None:
    """Write answers to a file atomically, as JSON for `.json` and Markdown for `.md`.

    Returns:
        The error in one line, or None.
    """
    if path.suffix == ".json":
        text = dump_json([e.as_json() for e in answers], indent=2) + "\n"
    elif path.suffix == ".md":
        text = "\n".join(printable(answer.as_markdown()) for answer in answers)
    else:
        return f"{path}: the name must end in .json or .md"
    try:
        with replacing(path) as state:
            # Servers may send lone surrogates.
            state.write_text(text, encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:  # the latter for a null byte in the name
        return cannot_write(path, error)
    return None


def cannot_write(path: Path | str, error: Exception) -> str:
    """Describe why a file cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
    return f"{path} cannot be written: {reason}"


def count(number: int, one: str, many: str) -> str:
    """Format a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def _paragraph_as_json(paragraph: Paragraph | None) -> dict[str, Any] | None:
    if paragraph is None:
        return None
    sentences = [
        {
            "text": s.text,
            "numbers": list(s.numbers),
            "supported": s.supported,
            "problem": s.problem,
            "dropped": list(s.dropped),
        }
        for s in paragraph.sentences
    ]
    return {"sentences": sentences, "note": paragraph.note}


def plan_as_json(plan: SearchPlan | None, problems: Sequence[str]) -> dict[str, Any]:
    """Return a plan, or why it is not valid, as JSON."""
    nodes, edges = (plan.nodes, plan.edges) if plan else ((), ())
    return {
        "valid": plan is not None,
        "problems": list(problems),
        "nodes": [{"label": n.label, "query": n.query, "source": n.source} for n in nodes],
        "edges": [list(edge) for edge in edges],
    }


def result_as_json(result: NodeResult) -> dict[str, Any]:
    """Return the result of a plan node as JSON."""
    return {
        "node": result.node.label,
        "expansion": list(result.expansion),
        "error": result.error,
        "cached": result.cached,
        "unread": list(result.unread),
        "passages": [
            {"id": p.id, "title": p.title, "text": p.text, "score": p.score}
            for p in result.passages
        ],
    }


def _plan_as_markdown(round_: SearchRound) -> str:
    if round_.plan is None:
        return f"Plan not valid: {escape_markdown(round_.problems[0])}"
    return "\n".join(f"    {line}" for line in render_plan(round_.plan).splitlines())


def _result_as_markdown(result: NodeResult) -> list[str]:
    label = f"- {result.node.label}: "
    if result.error is not None:
        return [f"{label}search failed ({escape_markdown(result.error)})"]
    found = [
        f"{label}{escape_markdown(p.title)}: {escape_markdown(p.text)}" for p in result.passages
    ]
    unread = [f"{label}not read: {escape_markdown(problem)}" for problem in result.unread]
    return [*(found or [f"{label}nothing found"]), *unread]
