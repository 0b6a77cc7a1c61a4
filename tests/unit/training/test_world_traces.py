from __future__ import annotations

import pytest
from search_double import SearchDouble

from rsearch_cli.errors import DataEmpty
from rsearch_cli.questions.world import World
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.runtime import Services
from rsearch_cli.training.stored_traces import Candidate, find_fault
from rsearch_cli.training.world_traces import write_world_traces


@pytest.fixture(scope="module")
def world():
    """All levels: three hops and comparisons too."""
    return World(7, {"validation": 1, "train": 2})


@pytest.fixture
def executor(world, quickstart, tmp_path):
    sources = open_sources(quickstart.search, world.corpus, tmp_path / "index")
    services = Services(quickstart, AnswerCache(tmp_path / "answers"), Budget())
    with PlanExecutor(sources, quickstart.search, services) as executor:
        yield executor


def test_every_trace_would_pass_the_filter_for_files(world, executor, quickstart):
    questions = world.load("train", 200)
    traces, stats = write_world_traces(questions, executor, quickstart)
    faults = [find_fault(Candidate(trace, 0), quickstart) for trace in traces]
    assert set(faults) == {None}
    assert stats.taken == len(traces) > 150
    assert stats.taken + stats.rejected.total() == 200
    assert set(stats.rejected) <= {"without the evidence in the results"}


def test_the_answer_stands_in_the_results(world, executor, quickstart):
    traces, _ = write_world_traces(world.load("train", 60), executor, quickstart)
    open_ended = [t for t in traces if t.question.answers[0] not in ("yes", "no")]
    assert open_ended
    assert all(t.question.answers[0] in t.segments[1].text for t in open_ended)


@pytest.mark.parametrize(
    ("kind", "thought"),
    [
        ("author", "I look up one fact."),
        ("author-birthplace", "I look up a first fact, then a second one."),
        (
            "author-birthplace-country",
            "I look up a first fact, then a second one, then a third one.",
        ),
        ("same-birthplace", "I look up two facts and compare them."),
    ],
)
def test_the_thought_fits_the_plan(world, executor, quickstart, kind, thought):
    questions = [q for q in world.load("train") if q.type == kind]
    traces, _ = write_world_traces(questions, executor, quickstart)
    assert all(t.segments[0].text.startswith(f"<think> {thought} </think>") for t in traces)


def test_a_trace_whose_searches_missed_is_left_out(world, executor, quickstart):
    questions = world.load("train", 4)

    class Forgetful(SearchDouble):
        def execute(self, plans, on_result=None):
            return [
                results if i % 2 else tuple(type(r)(r.node) for r in results)
                for i, results in enumerate(executor.execute(plans))
            ]

    traces, stats = write_world_traces(questions, Forgetful(), quickstart)
    assert len(traces) == 2
    assert stats.rejected == {"without the evidence in the results": 2}


def test_it_stops_at_the_most_that_is_wanted(world, executor, quickstart):
    sft = quickstart.sft.model_copy(update={"max_traces": 3})
    recipe = quickstart.model_copy(update={"sft": sft})
    traces, stats = write_world_traces(world.load("train", 50), executor, recipe)
    assert (len(traces), stats.taken) == (3, 3)


def test_a_protocol_without_the_worlds_sources_leaves_no_trace(world, executor, quickstart):
    protocol = ProtocolConfig(sources={"Elsewhere": "nothing of this world"})
    recipe = quickstart.model_copy(update={"protocol": protocol})
    with pytest.raises(DataEmpty, match="5 with a plan that the recipe's protocol refuses"):
        write_world_traces(world.load("train", 5), executor, recipe)
