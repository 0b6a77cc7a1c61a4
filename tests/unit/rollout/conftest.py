"""The built-in model, its world and a search layer over it."""

from __future__ import annotations

import pytest

from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import open_services


@pytest.fixture(scope="module")
def world(quickstart):
    return open_question_set(quickstart.questions, seed=0)


@pytest.fixture(scope="module")
def executor(quickstart, world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    sources = open_sources(quickstart.search, world.corpus, folder / "index")
    with (
        open_services(quickstart, None, folder / "answers") as services,
        PlanExecutor(sources, quickstart.search, services) as executor,
    ):
        yield executor


@pytest.fixture(scope="module")
def nano(quickstart):
    """The model inside the package, for tests that leave it as it is."""
    from rsearch_cli.policy.loading import load_policy

    return load_policy(quickstart.policy, seed=0)
