"""One search or none: the same policy, the same search layer, trajectories of the same kind."""

from __future__ import annotations

import pytest
from byte_policy import BytePolicy
from search_double import SearchDouble

from rsearch_cli.errors import PolicyError
from rsearch_cli.evaluation.methods import run_method
from rsearch_cli.policy.generation import Generation
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.types import NodeResult, Passage, Question

QUESTIONS = [Question(str(i), f"Who wrote book {i}?", ("x",)) for i in range(3)]


class Writer(BytePolicy):
    """Always answers; records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.stops: list[str] = []

    def generate(self, contexts, stops, max_new_tokens, sampling=None, cache=None, on_text=None):
        self.asked.append([self.decode(c.token_ids) for c in contexts])
        self.stops = list(stops)
        return [Generation((1, 2), "<answer> x </answer>", "tag") for _ in contexts]


class Library(SearchDouble):
    """Finds a passage about whatever it is asked."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def execute(self, plans, on_result=None):
        self.queries += [node.query for plan in plans for node in plan.nodes]
        return [
            (NodeResult(p.nodes[0], passages=(Passage("1", "A [PAD] title", "text"),)),)
            for p in plans
        ]


@pytest.fixture
def rollout(quickstart):
    recipe = quickstart.model_copy(
        update={"rollout": quickstart.rollout.model_copy(update={"micro_batch": 2})}
    )
    return Rollout(Writer(), Library(), recipe)


def test_direct_asks_without_a_passage(rollout):
    trajectories = run_method("direct", rollout, QUESTIONS)
    assert [t.answer for t in trajectories] == ["x"] * 3
    assert [t.stop for t in trajectories] == ["answer"] * 3
    assert all(t.rounds == () for t in trajectories)
    assert rollout.executor.queries == []
    assert [len(batch) for batch in rollout.policy.asked] == [2, 1]
    assert rollout.policy.stops == ["</answer>"]


def test_rag_searches_once_with_the_question_in_the_first_source(rollout):
    trajectories = run_method("rag", rollout, QUESTIONS)
    assert rollout.executor.queries == [q.text for q in QUESTIONS]
    (round_,) = trajectories[0].rounds
    assert round_.plan.nodes[0].source == "General"
    assert "A [ PAD] title: text" in rollout.policy.asked[0][0]
    assert rollout.policy.asked[0][0].endswith("Who wrote book 0?")


def test_the_agent_goes_through_the_rollout(rollout):
    trajectories = run_method("rsearch", rollout, QUESTIONS[:1])
    assert trajectories[0].segments[-1].token_ids == (256,)
    assert rollout.policy.stops == ["</search>", "</answer>"]


def test_a_prompt_without_room_is_refused(rollout):
    question = Question("long", "word " * 2000, ("x",))
    with pytest.raises(PolicyError, match="question long: its prompt for method direct leaves no"):
        run_method("direct", rollout, [question])
