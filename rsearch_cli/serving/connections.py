"""Requests to a policy on a server: each in a thread of its own, as many as the server may get."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.turns import make_on_text
from rsearch_cli.services.budget import billed_to
from rsearch_cli.services.event_loop import wait_for
from rsearch_cli.serving.job import Job, JobSteps
from rsearch_cli.serving.queue import RequestQueue
from rsearch_cli.serving.requests import Ticket
from rsearch_cli.types import FollowUp
from rsearch_cli.workflows.ask import Agent


class _Over(Exception):
    """Ends a request that nobody waits for."""


class ConnectionWorkers:
    """Answers requests with a policy on a server, some at a time.

    Args:
        agent: Its policy is an `EndpointPolicy`.
        queue: Where the requests come from.
        most: Most requests at a time.
    """

    def __init__(self, agent: Agent, queue: RequestQueue, most: int) -> None:
        assert isinstance(agent.policy, EndpointPolicy)
        self._policy = agent.policy
        self._queue = queue
        self._steps = JobSteps(agent)
        self._threads = [
            threading.Thread(target=self._run, name=f"serving-{number}", daemon=True)
            for number in range(most)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the threads have ended; the queue is closed."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        queue = self._queue
        while True:
            with queue.changed:
                queue.changed.wait_for(lambda: queue.closed or queue.waiting)
                tickets = queue.take(1)
            if not tickets and queue.closed:
                return
            for ticket in tickets:
                self._serve(ticket)

    def _serve(self, ticket: Ticket) -> None:
        try:
            job = self._steps.open(ticket)
            with billed_to(job.bill):
                answer = self._answer(job)
        except (_Over, CancelledError):
            self._queue.abandon(ticket)
        except Exception as error:
            self._queue.fail(ticket, error)
        else:
            self._queue.finish(ticket, answer)

    def _answer(self, job: Job) -> AgentAnswer:
        steps, turns = self._steps, self._steps.turns
        asked = FollowUp(job.ticket.request.question)
        if steps.needs_condensing(job):
            asked = steps.condense(job)
        state = steps.start(job, asked)
        while state.stop is None:
            _check(job)
            reply = self._policy.submit(
                state.context, turns.stops(state), state.budget, job.sampling, make_on_text(state)
            )
            job.ticket.depend_on(reply)
            (generation,) = wait_for(reply)
            _check(job)
            turns.record(state, generation)
            if state.stop is None:
                search = turns.search([state])
                job.ticket.depend_on(search.results)
                turns.insert_results(search)
        answer = steps.answer(job)
        if steps.needs_paragraph(job):
            _check(job)
            answer = steps.write_paragraph(answer)
        return steps.close(job, answer)


def _check(job: Job) -> None:
    if job.ticket.is_over:
        raise _Over
