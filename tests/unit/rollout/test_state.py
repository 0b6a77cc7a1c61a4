"""Micro-batches: how many drafts are generated at once."""

from __future__ import annotations

import signal
import threading
from collections import deque

import pytest

from rsearch_cli.policy.generation import Prompt
from rsearch_cli.rollout.search_thread import SearchThread
from rsearch_cli.rollout.state import MicroBatch, RolloutState, count_fitting
from rsearch_cli.services.event_loop import PATIENCE_SECONDS, StopNow, wait_for
from rsearch_cli.types import Question, Segment


def states(*prompts: int, budget: int = 100) -> deque[RolloutState]:
    question = Question("q", "Which river?", ("Tiber",))
    return deque(RolloutState(question, Prompt((), (1,) * length), budget) for length in prompts)


@pytest.mark.parametrize(
    ("prompts", "rows", "tokens", "count"),
    [
        ((100, 100, 100), 2, None, 2),
        ((100, 100, 100), 8, None, 3),
        ((100, 100, 100), 8, 600, 3),
        ((100, 100, 100), 8, 599, 2),
        ((100, 100, 100), 1, 9999, 1),
        # Short rows are padded to the longest one: three of 400 come to 1200.
        ((50, 50, 300), 8, 1199, 2),
        ((50, 50, 300), 8, 1200, 3),
        ((900, 10), 8, 300, 1),
    ],
)
def test_rows_and_tokens_bound_a_micro_batch(prompts, rows, tokens, count):
    assert count_fitting(states(*prompts), rows, tokens) == count


def test_what_was_written_counts_towards_the_tokens():
    rows = states(100, 100)
    rows[0].segments.append(Segment("", (5,) * 50, "model"))
    assert count_fitting(rows, 8, 400) == 1
    assert count_fitting(rows, 8, 500) == 2


def test_a_finished_draft_is_not_active():
    one, other = states(10, 10)
    one.stop = "eos"
    assert MicroBatch([one, other]).active == [other]


class Endless:
    """A search layer that searches until it is told not to, and interrupts the main thread."""

    def __init__(self, patient_for: float | None = None) -> None:
        self.patience: list[float] = []
        self.begun = 0
        self._over = threading.Event()
        self._patient_for = patient_for

    def execute(self, plans, on_result=None):
        self.begun += 1
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert self._over.wait(20), "nobody gave it up"
        return []

    def cancel(self, patience=0.0):
        self.patience.append(patience)
        if patience != self._patient_for:
            self._over.set()


class Watcher:
    on_result = None


def search_twice(executor: Endless, observer: Watcher | None = None) -> None:
    with SearchThread(executor, observer) as searches:
        searches.submit([])
        wait_for(searches.submit([]))


def test_ctrl_c_gives_a_search_some_seconds_and_begins_no_other():
    endless = Endless()
    with pytest.raises(KeyboardInterrupt):
        search_twice(endless)
    assert (endless.patience[0], endless.begun) == (PATIENCE_SECONDS, 1)


def test_ctrl_c_gives_a_search_up_that_outlasts_its_seconds():
    endless = Endless(patient_for=PATIENCE_SECONDS)
    with pytest.raises(KeyboardInterrupt):
        search_twice(endless)
    assert endless.patience[0] == PATIENCE_SECONDS
    assert set(endless.patience[1:]) == {0.0}


def test_for_a_person_who_looks_on_a_search_is_given_up_at_once():
    endless = Endless()
    with pytest.raises(KeyboardInterrupt):
        search_twice(endless, Watcher())
    assert set(endless.patience) == {0.0}


def test_the_second_ctrl_c_gives_a_search_up_at_once():
    def stop_now(number, frame):
        raise StopNow

    endless, before = Endless(), signal.signal(signal.SIGINT, stop_now)
    try:
        with pytest.raises(StopNow):
            search_twice(endless)
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(endless.patience) == {0.0}


def test_an_error_waits_for_the_search_under_way_and_begins_no_other():
    class Counting:
        begun = ended = 0

        def execute(self, plans, on_result=None):
            self.begun += 1
            assert free.wait(20)
            self.ended += 1
            return []

    free, counting = threading.Event(), Counting()
    with pytest.raises(LookupError), SearchThread(counting, None) as searches:
        first, _ = searches.submit([]), searches.submit([])
        while not first.running():
            pass
        threading.Timer(0.1, free.set).start()
        raise LookupError
    assert (counting.begun, counting.ended) == (1, 1)
