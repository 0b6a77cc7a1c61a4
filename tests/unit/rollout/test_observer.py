"""Looking on while a question is answered: what is told, and that it changes nothing."""

from __future__ import annotations

import signal
import threading
from itertools import pairwise

import pytest
from search_double import SearchDouble

from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.rollout.rollout import Rollout


class Watcher:
    """Notes what it is told; may interrupt at the n-th text."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.turns: list[list[str]] = [[]]
        self.plans: list = []
        self.results: list = []
        self.interrupt_at = interrupt_at

    def on_text(self, text):
        self.turns[-1].append(text)
        if len(self.turns[-1]) == self.interrupt_at:
            raise KeyboardInterrupt

    def on_plan(self, reading):
        self.plans.append(reading)
        self.turns.append([])

    def on_result(self, result):
        self.results.append(result)


@pytest.fixture
def question(world):
    return world.load("test", 1)[0]


def strip_scores(trajectory):
    return (trajectory.segments, trajectory.answer, trajectory.stop)


@pytest.mark.parametrize("opened", [False, True])
def test_it_is_told_everything_and_changes_nothing(quickstart, nano, executor, question, opened):
    settings = quickstart.rollout.model_copy(update={"open_thought": opened})
    recipe = quickstart.model_copy(update={"rollout": settings})
    watcher = Watcher()
    watched = Rollout(nano, executor, recipe, watcher).run([question], GREEDY)[0]
    alone = Rollout(nano, executor, recipe).run([question], GREEDY)[0]
    assert strip_scores(watched) == strip_scores(alone)
    written = [s.text for s in watched.segments if s.author == "model"]
    assert [turn[-1] for turn in watcher.turns] == [watched.opening + written[0], *written[1:]]
    for turn in watcher.turns:
        assert len(turn) > 5, "it should be told token by token"
        assert all(b.startswith(a) for a, b in pairwise(turn))
    assert [r.plan for r in watcher.plans] == [r.plan for r in watched.rounds]
    assert tuple(watcher.results) == watched.rounds[0].results


def test_an_interruption_leaves_policy_and_search_fit_for_the_next(
    quickstart, nano, executor, question
):
    with pytest.raises(KeyboardInterrupt):
        Rollout(nano, executor, quickstart, Watcher(interrupt_at=4)).run([question], GREEDY)
    first = Rollout(nano, executor, quickstart, Watcher()).run([question], GREEDY)[0]
    assert first.stop == "answer"
    assert strip_scores(first) == strip_scores(
        Rollout(nano, executor, quickstart).run([question], GREEDY)[0]
    )


def test_an_interruption_gives_up_the_search_that_is_under_way(quickstart, nano, question):
    class Endless(SearchDouble):
        def __init__(self) -> None:
            self.cancelled = threading.Event()

        def execute(self, plans, on_result=None):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert self.cancelled.wait(10), "nobody gave it up"
            return []

        def cancel(self, grace=0.0):
            self.cancelled.set()

    endless = Endless()
    with pytest.raises(KeyboardInterrupt):
        Rollout(nano, endless, quickstart, Watcher()).run([question], GREEDY)
    assert endless.cancelled.is_set()


def test_an_observer_follows_one_question(quickstart, nano, executor, question):
    rollout = Rollout(nano, executor, quickstart, Watcher())
    with pytest.raises(ValueError, match="follows one question, not 2"):
        rollout.run([question] * 2, GREEDY)
