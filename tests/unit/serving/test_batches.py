"""Requests that share batches of local weights: who joins when, and what one does to the others."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future

import pytest

from rsearch_cli.errors import OutOfMemory
from rsearch_cli.policy.prefix_cache import PrefixCache
from rsearch_cli.rollout.events import Asked, PlanWritten
from rsearch_cli.serving import batches
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.requests import AskRequest
from rsearch_cli.types import FollowUp, Paragraph, Sentence, Turn


class Watched:
    """The batches of a policy; a test may hold the first one, or let some of them fail."""

    def __init__(self, policy):
        self.generate = policy.generate_rows
        self.batches = []
        self.began, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.errors, self.least_rows = [], 1

    def __call__(self, rows, cache=None):
        self.batches.append(rows)
        self.began.set()
        assert self.go_on.wait(30)
        if self.errors and len(rows) >= self.least_rows:
            raise self.errors.pop()
        return self.generate(rows, cache)


@pytest.fixture
def watched(agent, monkeypatch):
    watched = Watched(agent.policy)
    monkeypatch.setattr(agent.policy, "generate_rows", watched)
    return watched


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def submit_while_held(engine, watched, requests):
    """Submit requests such that all but the first are there when its first turn ends."""
    watched.began.clear()
    watched.go_on.clear()
    first = engine.submit(requests[0])
    assert watched.began.wait(20)
    tickets = [first, *(engine.submit(request) for request in requests[1:])]
    watched.go_on.set()
    return [ticket.future.result(60) for ticket in tickets]


def test_requests_join_when_a_turn_ends(agent, watched, questions):
    alone = [agent.ask(question) for question in questions[:6]]
    watched.batches.clear()
    with ServingEngine(agent, max_batch=8) as engine:
        requests = [AskRequest(question) for question in questions[:6]]
        answers = submit_while_held(engine, watched, requests)
        counters = engine.counters
    assert [a.answer for a in answers] == [a.answer for a in alone]
    assert [a.trajectory.segments for a in answers] == [a.trajectory.segments for a in alone]
    sizes = [len(rows) for rows in watched.batches]
    assert sizes[0] == 1 and max(sizes) >= 5
    assert (counters.batches, counters.rows) == (len(sizes), sum(sizes))
    assert counters.largest_batch == max(sizes)


def test_rows_of_a_batch_are_in_the_same_round_and_keep_their_keys(agent, watched, questions):
    resumed = []
    resume = PrefixCache.resume

    def spy(cache, contexts, pad):
        inputs = resume(cache, contexts, pad)
        resumed.append((len(contexts), inputs is not None))
        return inputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefixCache, "resume", spy)
        with ServingEngine(agent, max_batch=8) as engine:
            submit_while_held(engine, watched, [AskRequest(question) for question in questions[:5]])
    assert all(len({tuple(row.stops) for row in rows}) == 1 for rows in watched.batches)
    plans = sum(count for count, kept in resumed if not kept)
    assert plans == 5 == sum(count for count, kept in resumed if kept)


def test_a_batch_has_no_more_rows_than_it_may(agent, watched, questions):
    with ServingEngine(agent, max_batch=3) as engine:
        submit_while_held(engine, watched, [AskRequest(question) for question in questions[:8]])
    assert max(len(rows) for rows in watched.batches) == 3


def test_a_sampled_request_changes_nothing_for_a_greedy_one(agent, watched, questions):
    alone = agent.ask(questions[1])
    hot = AskRequest(questions[0], temperature=2.0, max_tokens=40)
    with ServingEngine(agent, max_batch=8) as engine:
        requests = [hot, AskRequest(questions[1]), hot, hot]
        answers = submit_while_held(engine, watched, requests)
    assert answers[1].trajectory.segments == alone.trajectory.segments
    mixed = [rows for rows in watched.batches if len({row.sampling for row in rows}) > 1]
    assert mixed, "greedy and sampled requests shared no batch"


def test_odd_settings_of_one_request_do_no_harm_to_others(agent, watched, questions):
    odd = [AskRequest(questions[0], temperature=t) for t in (1e-40, 1e30, -1.0)]
    odd.append(AskRequest(questions[0], max_tokens=0))
    odd.append(AskRequest("\ud800 \x00" * 20))
    odd.append(AskRequest(questions[0], temperature="hot"))
    alone = agent.ask(questions[1])
    with ServingEngine(agent, max_batch=8) as engine:
        tickets = [engine.submit(request) for request in odd]
        fine = engine.submit(AskRequest(questions[1])).future.result(60)
        assert fine.trajectory.segments == alone.trajectory.segments
        answers = [ticket.future.result(60) for ticket in tickets[:4]]
        tickets[4].future.exception(60)
        assert isinstance(tickets[5].future.exception(60), TypeError)
    assert answers[0].answer == agent.ask(questions[0]).answer == answers[2].answer
    assert answers[3].tokens == 1


def test_out_of_memory_halves_the_batch_until_it_fits_and_for_a_while(
    agent, watched, questions, caplog, monkeypatch
):
    monkeypatch.setattr(batches, "FULL_AGAIN", 3)
    watched.errors, watched.least_rows = [OutOfMemory("2 GB"), OutOfMemory("2 GB")], 3
    with ServingEngine(agent, max_batch=8) as engine:
        requests = [AskRequest(question) for question in questions[:7]]
        answers = submit_while_held(engine, watched, requests)
        assert all(answer.answer for answer in answers)
        sizes = [len(rows) for rows in watched.batches]
        after = sizes[sizes.index(6) + 1 :]
        assert after[0] == 3 and max(after[1:4]) <= 2
        assert "out of memory while generating 6" in caplog.text
        watched.batches.clear()
        submit_while_held(engine, watched, requests)
        assert max(len(rows) for rows in watched.batches) > 3
        watched.errors, watched.least_rows = [OutOfMemory("2 GB")], 1
        single = engine.submit(requests[0])
        assert isinstance(single.future.exception(60), OutOfMemory)
        assert engine.submit(requests[0]).future.result(60).answer


def test_an_idle_engine_keeps_no_keys(agent, questions):
    with ServingEngine(agent, max_batch=4) as engine:
        for ticket in [engine.submit(AskRequest(question)) for question in questions[:5]]:
            assert ticket.future.result(60).answer
        assert wait_until(lambda: not engine._workers._caches)


def test_a_bug_in_a_batch_ends_that_batch_only(agent, watched, questions, caplog):
    watched.errors, watched.least_rows = [RuntimeError("an illegal instruction")], 4
    with ServingEngine(agent, max_batch=8) as engine:
        with pytest.raises(RuntimeError, match="illegal"):
            submit_while_held(engine, watched, [AskRequest(q) for q in questions[:5]])
        last = engine.submit(AskRequest(questions[0]))
        assert last.future.result(60).answer
        assert engine.drain(30) and engine.counters.requests["failed"] == 4
        assert engine.counters.requests["answered"] == 2
        assert not caplog.records, "whoever waits for the answer reports the error"


def test_a_cancelled_row_leaves_the_others_of_its_batch_alone(agent, questions):
    alone = agent.ask(questions[1])
    told, tickets = [], []

    def cancel_at_the_third_text(event):
        told.append(event)
        if len(told) == 3:
            tickets[0].cancel()

    with ServingEngine(agent, max_batch=4) as engine:
        with engine._queue.changed:  # both are taken together
            tickets.append(engine.submit(AskRequest(questions[0]), cancel_at_the_third_text))
            other = engine.submit(AskRequest(questions[1]))
        answer = other.future.result(60)
        assert engine.drain(20)
    assert answer.trajectory.segments == alone.trajectory.segments
    assert tickets[0].future.cancelled()
    assert len(told) == 3


def test_giving_up_cancels_the_search_and_frees_the_place(agent, monkeypatch, questions):
    searches = []

    def never(plans, on_result=None):
        searches.append(Future())
        return searches[-1]

    planned = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(agent.executor, "submit", never)
        with ServingEngine(agent, max_batch=4) as engine:

            def on_event(event):
                if isinstance(event, PlanWritten):
                    planned.set()

            ticket = engine.submit(AskRequest(questions[0]), on_event)
            assert planned.wait(20)
            ticket.cancel()
            assert engine.drain(20)
            with pytest.raises(CancelledError):
                ticket.future.result()
            assert all(search.cancelled() for search in searches)
            assert (engine.running, engine.counters.requests["cancelled"]) == (0, 1)


def test_a_server_rewrites_and_writes_while_others_are_answered(agent, questions, monkeypatch):
    threads, answered = [], threading.Event()

    def condense(history, question):
        threads.append(threading.current_thread().name)
        assert answered.wait(30), "the engine waits for the writer"
        return FollowUp(question, asked_as=questions[0])

    def write_paragraph(answer):
        threads.append(threading.current_thread().name)
        return Paragraph((Sentence("It is so.", (1,)),))

    monkeypatch.setattr(agent, "condense", condense)
    monkeypatch.setattr(agent, "write_paragraph", write_paragraph)
    monkeypatch.setattr(type(agent), "writer_is_local", False)
    monkeypatch.setattr(type(agent), "can_write", True)
    told = []
    with ServingEngine(agent) as engine:
        history = (Turn("Who?", "Nobody"),)
        follow_up = AskRequest("And where?", history, style="paragraph")
        ticket = engine.submit(follow_up, told.append)
        assert engine.submit(AskRequest(questions[1])).future.result(30).paragraph is None
        answered.set()
        answer = ticket.future.result(30)
    assert told[0] == Asked("And where?", questions[0])
    assert answer.trajectory.question.text == questions[0]
    assert answer.paragraph.sentences[0].text == "It is so."
    assert len(threads) == 2 and all(name.startswith("serving-writer") for name in threads)


def test_keys_that_cannot_be_joined_are_computed_again(agent, watched, questions, monkeypatch):
    def join(caches):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(PrefixCache, "join", join)
    with ServingEngine(agent, max_batch=8) as engine:
        requests = [AskRequest(question) for question in questions[:5]]
        assert all(answer.answer for answer in submit_while_held(engine, watched, requests))


FOLLOW_UP = AskRequest("And where?", (Turn("Who?", "Nobody"),))


def test_nothing_is_rewritten_for_those_who_have_left(agent, watched, questions, monkeypatch):
    rewritten = []

    def condense(history, question):
        rewritten.append(question)
        tickets[-1].cancel()
        return FollowUp(question)

    monkeypatch.setattr(agent, "condense", condense)
    monkeypatch.setattr(type(agent), "writer_is_local", True)
    with ServingEngine(agent, max_batch=4) as engine:
        with engine._queue.changed:  # both are taken together
            tickets = [engine.submit(FOLLOW_UP), engine.submit(FOLLOW_UP)]
        assert tickets[0].future.result(60).question == "And where?"
        assert engine.drain(20) and len(rewritten) == 1


def test_a_cancelled_call_ends_its_request_only(agent, questions, monkeypatch):
    def condense(history, question):
        raise asyncio.CancelledError

    monkeypatch.setattr(agent, "condense", condense)
    monkeypatch.setattr(type(agent), "writer_is_local", True)
    with ServingEngine(agent) as engine:
        with pytest.raises(CancelledError):
            engine.submit(FOLLOW_UP).future.result(20)
        assert engine.submit(AskRequest(questions[0])).future.result(60).answer
        assert engine.counters.requests["cancelled"] == 1


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_giving_up_cancels_what_a_server_is_asked_to_write(agent, monkeypatch, end):
    began, ended = threading.Event(), threading.Event()

    async def call():
        began.set()
        await asyncio.sleep(60)

    def condense(history, question):
        try:
            agent.executor._services.loop.run(call())
        finally:
            ended.set()

    monkeypatch.setattr(agent, "condense", condense)
    monkeypatch.setattr(type(agent), "writer_is_local", False)
    monkeypatch.setattr(type(agent), "can_write", True)
    with ServingEngine(agent) as engine:
        ticket = engine.submit(FOLLOW_UP)
        assert began.wait(20)
        ticket.cancel() if end == "cancel" else engine.close()
        assert ended.wait(5)
