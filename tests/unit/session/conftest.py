"""An answered question, made by hand."""

from __future__ import annotations

import pytest

from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.types import (
    NodeResult,
    Passage,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

NODES = (
    PlanNode("A", "author of Dracula", "General"),
    PlanNode("B", "author birthplace", "General"),
)
NOVEL = Passage("n", "Dracula", "A novel by Bram Stoker.", score=2.0)
AUTHOR = Passage("https://x.org/s", "Bram Stoker", "Irish author, born in Dublin.", score=1.0)
MODEL = "<think> First [who]. </think>\n<search>\nNodes:\n</search>"


@pytest.fixture
def make_answer(quickstart):
    """Makes an answer with the given answer, rounds or segments."""

    def make(answer: str | None = "Dublin", **fields) -> AgentAnswer:
        plan = SearchPlan(NODES, (("A", "B"),))
        results = (
            NodeResult(NODES[0], (), (NOVEL,)),
            NodeResult(NODES[1], ("Bram Stoker",), (AUTHOR, NOVEL), cached=True),
        )
        settings = {
            "question": Question("asked", "Where was the author of *Dracula* born?", ()),
            "prompt_ids": (1, 2),
            "opening": "",
            "segments": (
                Segment(MODEL, (1, 2, 3), "model"),
                Segment("\n<result>\nA: x\n</result>\n", (4, 5), "system"),
                Segment(f"<answer> {answer} </answer>", (6,), "model"),
            ),
            "rounds": (SearchRound(plan, (), results),),
            "answer": answer,
            "stop": "answer",
        }
        return AgentAnswer(Trajectory(**(settings | fields)), quickstart, 1.25, 0.0)

    return make
