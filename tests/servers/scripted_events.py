"""Events of answers with any content, made from the records that a rollout leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import event_as_json, replay_events
from rsearch_cli.types import (
    FollowUp,
    NodeResult,
    Paragraph,
    Passage,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

BOOK = Passage(
    "book", "The Gorpus Lantern", "The Gorpus Lantern is a play by Bostes Garjus.", score=7.0
)
PERSON = Passage("https://example.org/garjus", "Bostes Garjus", "Bostes Garjus was born in Hanzur.")
QUESTION = "Where was the author of The Gorpus Lantern born?"
TWO_NODES = SearchPlan(
    (
        PlanNode("A", "author of The Gorpus Lantern", "General"),
        PlanNode("B", "birthplace", "General"),
    ),
    (("A", "B"),),
)


@cache
def _recipe() -> Recipe:
    return load_recipe("quickstart").recipe


def events_of(
    question: str,
    answer: str,
    found: Mapping[str, Sequence[Passage] | str],
    *,
    plan: SearchPlan = TWO_NODES,
    thought: str = "I look it up.",
    asked_as: str | None = None,
    paragraph: Paragraph | None = None,
) -> list[dict[str, Any]]:
    """The events of a question that took one search.

    `found` has the passages by node label, or the error of a search that failed.
    """
    results = tuple(
        NodeResult(node, error=value)
        if isinstance(value := found[node.label], str)
        else NodeResult(node, passages=tuple(value))
        for node in plan.nodes
    )
    trajectory = Trajectory(
        question=Question("asked-1", question, ()),
        prompt_ids=(),
        opening="",
        segments=(
            Segment(f"<think> {thought} </think>\n<search>\n</search>", (), "model"),
            Segment(f"<answer> {answer} </answer>", (), "model"),
        ),
        rounds=(SearchRound(plan, (), results),),
        answer=answer,
        stop="answer",
    )
    follow_up = FollowUp(question, asked_as) if asked_as else None
    whole = AgentAnswer(trajectory, _recipe(), 0.5, 0.0, follow_up, paragraph)
    events = [event_as_json(event) for event in replay_events(whole)]
    # What a live one says at its start.
    events[0] |= {"question": question, "asked_as": asked_as}
    return events


EVENTS = events_of(QUESTION, "Hanzur", {"A": [BOOK], "B": [PERSON]})
