"""The agent of the Python API: opened, asked alone and in a batch, closed."""

from __future__ import annotations

import gc

import pytest

import rsearch_cli
from rsearch_cli.errors import PolicyError, RecipeError, ServiceFailure, UsageError
from rsearch_cli.types import Trajectory
from rsearch_cli.workflows import ask


@pytest.fixture(scope="module")
def agent(quickstart):
    with rsearch_cli.Agent.from_pretrained(recipe=quickstart) as agent:
        yield agent


def test_an_answer_has_all_its_parts(agent):
    result = agent.ask(agent.examples[0])
    assert isinstance(result, rsearch_cli.AgentAnswer)
    assert result.question == agent.examples[0]
    assert result.answer and result.answer == result.trajectory.answer
    assert result.plan.nodes and result.passages
    assert [c.passage for c in result.citations] == list(result.passages)
    assert (result.usd, agent.name) == (0.0, "builtin:nano")


def test_a_batch_answers_as_single_questions_do(agent):
    results = agent.ask_many(agent.examples)
    assert [r.question for r in results] == list(agent.examples)
    assert [r.answer for r in results] == [agent.ask(q).answer for q in agent.examples]
    assert agent.ask_many([]) == []


def test_a_server_that_does_not_reply_is_an_error_of_one_question(agent, monkeypatch):
    def error(trajectory):
        return "no reply" if trajectory.question.id == "asked-1" else None

    monkeypatch.setattr(Trajectory, "error", property(error))
    with pytest.raises(ServiceFailure, match="no reply"):
        agent.ask(agent.examples[0])
    first, second = agent.ask_many(agent.examples[:2])
    assert first.trajectory.error == "no reply" and second.answer


def test_it_is_closed_once_by_hand_by_with_and_by_the_collector(quickstart, monkeypatch):
    closed = []
    monkeypatch.setattr(ask.ExitStack, "close", lambda stack: closed.append(stack))
    agent = rsearch_cli.Agent.from_pretrained(recipe=quickstart)
    agent.close()
    with agent:
        pass
    assert len(closed) == 1
    forgotten = rsearch_cli.Agent.from_pretrained(recipe=quickstart)
    del forgotten
    gc.collect()
    assert len(closed) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "runs/none"}, PolicyError),
        ({"overrides": ["search.topk=3"]}, RecipeError),
        ({"endpoint_model": "m"}, UsageError),
        ({"questions": ["why " * 3000]}, PolicyError),
    ],
)
def test_what_cannot_be_used_is_raised_before_the_model_is_loaded(
    quickstart, monkeypatch, arguments, error
):
    def never(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rsearch_cli.workflows.open_policy.load_policy", never)
    with pytest.raises(error):
        rsearch_cli.Agent.from_pretrained(**{"recipe": quickstart, **arguments})
