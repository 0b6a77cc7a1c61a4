"""Ctrl-C and errors while a search is in flight: what is paid for may finish, and for how long."""

from __future__ import annotations

import signal
import threading

import pytest
from byte_policy import BytePolicy
from search_double import SearchDouble

from rsearch_cli.policy.generation import GREEDY, Generation
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.services.event_loop import GRACE_SECONDS, StopNow
from rsearch_cli.types import Question

PLAN = "<think> hm </think>\n<search>\nNodes:\nA: river Rome (General)\nEdges:\n</search>"


class Planner(BytePolicy):
    """Writes one plan; the second call fails."""

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, contexts, stops, max_new_tokens, sampling=GREEDY, cache=None, on_text=None):
        self.calls += 1
        if self.calls > 1:
            raise LookupError
        return [Generation(tuple(PLAN.encode()), PLAN, "tag") for _ in contexts]


class Endless(SearchDouble):
    """Searches until it is cancelled, and interrupts the main thread."""

    def __init__(self) -> None:
        self.grace: list[float] = []
        self._over = threading.Event()

    def execute(self, plans, on_result=None):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert self._over.wait(20), "nobody cancelled it"
        return []

    def cancel(self, grace=0.0):
        self.grace.append(grace)
        self._over.set()


class Watcher:
    def on_text(self, text): ...

    def on_plan(self, reading): ...

    def on_result(self, result): ...


def roll_out(recipe, executor, observer=None, rows=1):
    rollout = recipe.rollout.model_copy(update={"max_new_tokens": 500, "micro_batch": 1})
    recipe = recipe.model_copy(update={"rollout": rollout})
    questions = [Question(str(i), "Which river?", ("Tiber",)) for i in range(rows)]
    return Rollout(Planner(), executor, recipe, observer).run(questions, GREEDY)


def test_ctrl_c_gives_a_search_some_seconds(quickstart):
    endless = Endless()
    with pytest.raises(KeyboardInterrupt):
        roll_out(quickstart, endless)
    assert endless.grace == [GRACE_SECONDS]


def test_with_an_observer_ctrl_c_cancels_a_search_at_once(quickstart):
    endless = Endless()
    with pytest.raises(KeyboardInterrupt):
        roll_out(quickstart, endless, Watcher())
    assert endless.grace == [0.0]


def test_the_second_ctrl_c_cancels_a_search_at_once(quickstart):
    def stop_now(number, frame):
        raise StopNow

    endless, before = Endless(), signal.signal(signal.SIGINT, stop_now)
    try:
        with pytest.raises(StopNow):
            roll_out(quickstart, endless)
    finally:
        signal.signal(signal.SIGINT, before)
    assert endless.grace == [0.0]


class Slow(SearchDouble):
    """Finishes only after the policy has failed."""

    def __init__(self, interrupts: bool = False) -> None:
        self.began = self.ended = 0
        self.cancelled = threading.Event()
        self.interrupts = interrupts

    def execute(self, plans, on_result=None):
        self.began += 1
        if self.interrupts:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        self.cancelled.wait(20 if self.interrupts else 0.3)
        self.ended += 1
        return []

    def cancel(self, grace=0.0):
        self.cancelled.set()


def test_an_error_waits_for_the_search_in_flight(quickstart):
    slow = Slow()
    with pytest.raises(LookupError):
        roll_out(quickstart, slow, rows=2)
    assert (slow.began, slow.ended) == (1, 1)


def test_ctrl_c_while_an_error_waits_cancels_the_search(quickstart):
    slow = Slow(interrupts=True)
    with pytest.raises(KeyboardInterrupt):
        roll_out(quickstart, slow, rows=2)
    assert slow.cancelled.is_set()
