"""An agent on the built-in model, and questions about its world, which is small here."""

from __future__ import annotations

import pytest

import rsearch_cli
from rsearch_cli.questions.sets import open_question_set

SMALL_WORLD = ("questions.world.train_regions=2", "questions.world.held_out_regions=1")


@pytest.fixture(scope="module")
def agent(quickstart):
    with rsearch_cli.Agent.from_pretrained(recipe=quickstart, overrides=SMALL_WORLD) as agent:
        yield agent


@pytest.fixture(scope="module")
def questions(agent):
    world = open_question_set(agent.recipe.questions, agent.recipe.seed)
    return [question.text for question in world.load("test", 24)]
