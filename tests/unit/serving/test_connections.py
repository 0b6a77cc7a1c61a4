"""The serving engine with a policy on a server: concurrent requests, what they cost, hanging up."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError

import pytest
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files

import rsearch_cli
from rsearch_cli.errors import ServiceFailure
from rsearch_cli.rollout.events import PlanWritten
from rsearch_cli.serving.engine import ServingEngine
from rsearch_cli.serving.requests import AskRequest
from rsearch_cli.types import Turn

PRICES = (
    "policy.endpoint.usd_per_million_input_tokens=1000",
    "policy.endpoint.usd_per_million_output_tokens=1000",
)


@pytest.fixture
def server():
    with ChatServer(write_as_agent, retry_after="0") as server:
        yield server


@pytest.fixture
def agent(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    _, corpus = write_files(tmp_path, 20)
    overrides = [*SETTINGS, *PRICES, f"search.sources.General.corpus={corpus}"]
    overrides += ["policy.endpoint.results=user_turn"]
    with rsearch_cli.Agent.from_pretrained(
        recipe="hotpot-offline",
        endpoint=server.base_url,
        endpoint_model="agent",
        overrides=overrides,
    ) as agent:
        yield agent


@pytest.fixture
def engine(agent):
    with ServingEngine(agent, max_batch=4) as engine:
        yield engine


def ask(number):
    return AskRequest(f"What is the number of city {number}?")


def test_requests_are_answered_at_the_same_time_and_each_has_its_own_bill(engine, server, agent):
    server._latency = 0.1
    tried_out = agent.budget.snapshot().total.usd
    tickets = {n: engine.submit(ask(n)) for n in range(1, 10)}
    answers = {n: ticket.future.result(60) for n, ticket in tickets.items()}
    assert {n: a.answer for n, a in answers.items() if n % 5 and n % 7} == {
        n: f"Nr {n * 17}" for n in answers if n % 5 and n % 7
    }
    assert 1 < server.most_at_once <= 4
    spent = agent.budget.snapshot().total.usd - tried_out
    assert sum(answer.usd for answer in answers.values()) == pytest.approx(spent)
    assert all(answer.usd > 0 for answer in answers.values())
    assert engine.counters.batches == 0


def test_a_server_that_fails_fails_one_request(engine, server):
    def fail_for_city_two(body):
        if "city 2?" in body["messages"][-1]["content"]:
            raise ConnectionError
        return write_as_agent(body)

    server.grade = fail_for_city_two
    bad, good = engine.submit(ask(2)), engine.submit(ask(3))
    assert isinstance(bad.future.exception(60), ServiceFailure)
    assert good.future.result(60).answer == "Nr 51"
    assert engine.counters.requests["failed"] == 1


def test_who_gives_up_frees_the_place_at_once(agent, server):
    server._latency = 30.0
    with ServingEngine(agent, max_batch=1) as engine:
        slow = engine.submit(ask(1))
        while not server.requests:
            time.sleep(0.01)
        server._latency = 0.0
        started = time.monotonic()
        slow.cancel()
        assert engine.submit(ask(3)).future.result(20).answer == "Nr 51"
        assert time.monotonic() - started < 10
        with pytest.raises(CancelledError):
            slow.future.result()
        assert engine.counters.requests["cancelled"] == 1


def test_who_gives_up_during_a_rewriting_frees_the_place_at_once(agent, server):
    server._latency = 30.0
    with ServingEngine(agent, max_batch=1) as engine:
        before = len(server.requests)
        slow = engine.submit(AskRequest("And of city 4?", (Turn("What is city 3?", "Nr 51"),)))
        while len(server.requests) == before:
            time.sleep(0.01)
        server._latency = 0.0
        started = time.monotonic()
        slow.cancel()
        assert engine.submit(ask(3)).future.result(20).answer == "Nr 51"
        assert time.monotonic() - started < 10
        assert engine.counters.requests["cancelled"] == 1


def test_a_cancelled_call_does_not_end_the_thread(agent, server, monkeypatch):
    def condense(history, question):
        raise asyncio.CancelledError

    monkeypatch.setattr(agent, "condense", condense)
    with ServingEngine(agent, max_batch=1) as engine:
        with pytest.raises(CancelledError):
            engine.submit(AskRequest("And 4?", (Turn("3?", "51"),))).future.result(20)
        assert engine.submit(ask(3)).future.result(20).answer == "Nr 51"


def test_a_follow_up_is_asked_as_what_the_writer_makes_of_it(engine, server):
    told, there = [], threading.Event()

    def on_event(event):
        told.append(event)
        if isinstance(event, PlanWritten):
            there.set()

    def rewrite(body):
        if body["messages"][-1]["content"].endswith("Rewritten question:"):
            return "What is the number of city 4?"
        return write_as_agent(body)

    server.grade = rewrite
    history = (Turn("What is the number of city 3?", "Nr 51"),)
    request = AskRequest("And what is the number of city 4?", history)
    answer = engine.submit(request, on_event).future.result(60)
    assert (told[0].question, told[0].asked_as) == (request.question, answer.asked_as)
    assert answer.asked_as == "What is the number of city 4?"
    assert answer.answer == "Nr 68" and there.is_set()
