"""Citations: the passages that the model was given, numbered, likeliest evidence first.

A model does not report what it used, so no claim is made about that. All passages are listed once:
first those that contain the answer's words in a row, then those with most of its words, then the
rest, each in the order of plan and search. Only what was put into the context is compared
(`search.passage_chars`). "yes" and "no" match no passage.
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
    """A passage that the model was given.

    Attributes:
        number: From 1.
        passage: As the source returned it.
        shown: Its text as the model saw it.
        nodes: Labels of the plan nodes that found it.
        contains_answer: Whether it contains the answer's words in a row.
    """

    number: int
    passage: Passage
    shown: str
    nodes: tuple[str, ...]
    contains_answer: bool

    @property
    def url(self) -> str | None:
        """The address of a web page, or None."""
        return self.passage.id if self.passage.id.startswith(("http://", "https://")) else None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {
            "number": self.number,
            "id": self.passage.id,
            "title": self.passage.title,
            "url": self.url,
            "nodes": list(self.nodes),
            "holds_answer": self.contains_answer,
            "text": self.shown,
        }


def cite(rounds: Sequence[SearchRound], answer: str | None, passage_chars: int) -> list[Citation]:
    """Number the passages of a trajectory.

    Args:
        rounds: Its searches.
        answer: Compared with the passages; None keeps their order.
        passage_chars: Characters of each passage that the model was shown.
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
    """Return whether the text contains the answer's words in a row, and the share it contains."""
    row, there = split_words(answer), split_words(text)
    if not row or row in _VERDICTS:
        return False, 0.0
    wanted = set(split_query(answer))
    whole = f" {' '.join(row)} " in f" {' '.join(there)} "
    return whole, len(wanted.intersection(there)) / len(wanted)


def _without_score(passage: Passage) -> Passage:
    """Return the passage without its score, which differs between searches."""
    return Passage(passage.id, passage.title, passage.text)
