"""Citations: the passages that an answer's model had, numbered, likeliest evidence first.

Place in the path: after the rollout, before the screen. On failure: none; without passages there
are no citations.

A model does not say what it used, so nothing is claimed about that. Numbered are all passages it
was given, each once: first those in which the words of the answer stand in a row, then those with
most of its words, then the others, each in the order of plan and search. Only what was put into the
context is read (`search.passage_chars`), not what the source had beyond that. «yes» and «no» are
words of the question, not of a passage, and are found in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.search.analyzer import split_query, split_words
from rsearch_cli.types import Passage, SearchRound

_VERDICTS = (["yes"], ["no"])


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that the model had.

    Attributes:
        number: From 1.
        passage: As the source gave it.
        shown: Its text as the model saw it.
        nodes: Labels of the plan nodes that found it.
        holds_answer: Whether the answer's words stand in it in a row.
    """

    number: int
    passage: Passage
    shown: str
    nodes: tuple[str, ...]
    holds_answer: bool

    @property
    def url(self) -> str | None:
        """Its address, if it is from the web."""
        return self.passage.id if self.passage.id.startswith(("http://", "https://")) else None

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON-ready dictionary."""
        return {
            "number": self.number,
            "id": self.passage.id,
            "title": self.passage.title,
            "url": self.url,
            "nodes": list(self.nodes),
            "holds_answer": self.holds_answer,
            "text": self.shown,
        }


def cite(rounds: Sequence[SearchRound], answer: str | None, passage_chars: int) -> list[Citation]:
    """Number the passages of a trajectory.

    Args:
        rounds: Its searches.
        answer: What they are compared with; None leaves them in order.
        passage_chars: How much of each the model was shown, in characters.
    """
    nodes: dict[Passage, list[str]] = {}
    for round_ in rounds:
        for result in round_.results:
            for passage in result.passages:
                labels = nodes.setdefault(_without_score(passage), [])
                labels += [] if result.node.label in labels else [result.node.label]
    shown = {p: shorten(flatten(p.text), passage_chars) for p in nodes}
    ranks = {p: _rank(answer or "", f"{p.title} {shown[p]}") for p in nodes}
    ordered = sorted(nodes, key=lambda p: ranks[p], reverse=True)
    return [
        Citation(number, p, shown[p], tuple(nodes[p]), ranks[p][0])
        for number, p in enumerate(ordered, 1)
    ]


def _rank(answer: str, text: str) -> tuple[bool, float]:
    """Whether the answer's words stand in the text in a row, and the share that stand anywhere."""
    row, there = split_words(answer), split_words(text)
    if not row or row in _VERDICTS:
        return False, 0.0
    wanted = set(split_query(answer))
    whole = f" {' '.join(row)} " in f" {' '.join(there)} "
    return whole, len(wanted.intersection(there)) / len(wanted)


def _without_score(passage: Passage) -> Passage:
    """The passage as such: two searches may rank it differently."""
    return Passage(passage.id, passage.title, passage.text)
