"""An agent on the built-in model, and its world."""

from __future__ import annotations

import pytest

import rsearch_cli
from rsearch_cli.questions.sets import open_question_set


@pytest.fixture(scope="module")
def agent(quickstart):
    with rsearch_cli.Agent.from_pretrained(recipe=quickstart) as agent:
        yield agent


@pytest.fixture(scope="session")
def questions(quickstart):
    world = open_question_set(quickstart.questions, quickstart.seed)
    return [question.text for question in world.load("test", 24)]
