"""The serving engine: answers of many callers, the bound of the queue, cancelling and draining."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from rsearch_cli.rollout.events import Asked, Finished, PlanWritten, Thinking
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.requests import AskRequest, QueueFull


@pytest.fixture
def engine(agent):
    with ServingEngine(agent, max_batch=8, max_waiting=32) as engine:
        yield engine


class Held:
    """Holds the engine up in the first event of a request."""

    def __init__(self):
        self.began, self.go_on, self.events = threading.Event(), threading.Event(), []

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, Thinking):
            self.began.set()
            assert self.go_on.wait(20)


def test_everybody_gets_the_answer_to_their_own_question(agent, engine, questions):
    alone = {q: agent.ask(q) for q in questions}
    tickets = {q: engine.submit(AskRequest(q)) for q in questions}
    for question, ticket in tickets.items():
        answer = ticket.future.result(60)
        assert answer.question == question
        assert answer.answer == alone[question].answer
        assert answer.plan == alone[question].plan
    assert engine.counters.requests["answered"] == len(questions)
    assert engine.counters.tokens == sum(answer.tokens for answer in alone.values())
    assert engine.drain(5)
    assert (engine.waiting, engine.running) == (0, 0)


def test_events_come_in_order_and_end_with_the_answer(engine, questions):
    told = []
    answer = engine.submit(AskRequest(questions[0]), told.append).future.result(60)
    assert told[0] == Asked(questions[0])
    assert told[-1] == Finished(answer)
    (plan,) = [event for event in told if isinstance(event, PlanWritten)]
    assert plan.plan == answer.plan


def test_a_full_queue_refuses(agent, questions):
    held = Held()
    with ServingEngine(agent, max_batch=1, max_waiting=2) as engine:
        first = engine.submit(AskRequest(questions[0]), held)
        assert held.began.wait(20)
        others = [engine.submit(AskRequest(q)) for q in questions[1:3]]
        with pytest.raises(QueueFull, match="2 requests are already waiting, which is the limit"):
            engine.submit(AskRequest(questions[3]))
        assert (engine.waiting, engine.running) == (2, 1)
        others[0].cancel()
        last = engine.submit(AskRequest(questions[3]))  # the place is free again
        held.go_on.set()
        assert all(ticket.future.result(60) for ticket in (first, others[1], last))
        assert engine.counters.requests["refused"] == 1


def test_a_cancelled_request_ends_at_its_next_token(agent, questions):
    held = Held()
    with ServingEngine(agent, max_batch=1) as engine:
        ticket = engine.submit(AskRequest(questions[0]), held)
        assert held.began.wait(20)
        ticket.cancel()
        held.go_on.set()
        with pytest.raises(CancelledError):
            ticket.future.result(20)
        assert engine.drain(20)
        assert not any(isinstance(event, PlanWritten | Finished) for event in held.events)
        assert engine.counters.requests["cancelled"] == 1


def test_draining_answers_what_was_accepted_and_refuses_the_rest(engine, questions):
    tickets = [engine.submit(AskRequest(q)) for q in questions[:6]]
    assert engine.drain(60)
    assert all(ticket.future.done() and ticket.future.result() for ticket in tickets)
    with pytest.raises(QueueFull, match="shutting down"):
        engine.submit(AskRequest(questions[0]))


def test_closing_cancels_what_is_left(agent, questions):
    engine = ServingEngine(agent, max_batch=1)
    tickets = [engine.submit(AskRequest(q)) for q in questions]
    engine.close()
    assert all(ticket.future.done() for ticket in tickets)


def test_a_failure_ends_one_request_only(engine, questions):
    long = engine.submit(AskRequest("why " * 3000))
    short = engine.submit(AskRequest(questions[0]))
    assert "max_seq_length" in str(long.future.exception(60))
    assert short.future.result(60).answer
    assert engine.counters.requests["failed"] == 1


def test_a_callback_that_fails_ends_its_own_request(engine, questions):
    def fail(event):
        if isinstance(event, PlanWritten):
            raise LookupError("no such page")

    broken = engine.submit(AskRequest(questions[0]), fail)
    fine = engine.submit(AskRequest(questions[1]))
    assert isinstance(broken.future.exception(60), LookupError)
    assert fine.future.result(60).answer


def test_a_request_has_its_own_limit_of_tokens(engine, questions):
    answer = engine.submit(AskRequest(questions[0], max_tokens=5)).future.result(60)
    assert (answer.tokens, answer.trajectory.stop) == (5, "length")
