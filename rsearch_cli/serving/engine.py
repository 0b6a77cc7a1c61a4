"""The serving engine: a bounded queue of requests in front of one agent."""

from __future__ import annotations

from typing import Self

from rsearch_cli.policy.endpoint import EndpointPolicy
from rsearch_cli.rollout.events import OnEvent
from rsearch_cli.serving.batches import BatchWorker
from rsearch_cli.serving.connections import ConnectionWorkers
from rsearch_cli.serving.job import JobSteps
from rsearch_cli.serving.queue import RequestQueue
from rsearch_cli.serving.requests import AskRequest, Counters, Ticket
from rsearch_cli.workflows.ask import Agent


class ServingEngine:
    """Answers requests of several callers with one agent.

    Thread-safe, and a context manager. Close it before the agent.

    With local weights requests share batches. Greedy answers are those that `Agent.ask` gives,
    except where two tokens are so close that the rounding of another batch size decides.

    Args:
        agent: Answers; nothing else may generate with its policy meanwhile.
        max_batch: Most requests that share a batch, or that a server is asked at the same time;
            None takes the recipe's `rollout.micro_batch`, or `policy.endpoint.service.concurrency`.
        max_waiting: Most requests that wait for their turn.
        explain_all: Whether answers and events may have the messages of services, with their
            addresses. Otherwise these are logged, and a general sentence takes their place.

    Attributes:
        agent: The agent.
    """

    def __init__(
        self,
        agent: Agent,
        max_batch: int | None = None,
        max_waiting: int = 64,
        *,
        explain_all: bool = False,
    ) -> None:
        self.agent = agent
        self._queue = RequestQueue(max_waiting)
        recipe = agent.recipe
        steps = JobSteps(agent, explain_all)
        self._workers: BatchWorker | ConnectionWorkers
        if isinstance(agent.policy, EndpointPolicy):
            most = max_batch or recipe.policy.endpoint.service.concurrency
            self._workers = ConnectionWorkers(steps, self._queue, most)
        else:
            most = max_batch or recipe.rollout.micro_batch
            self._workers = BatchWorker(steps, self._queue, most)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for their turn."""
        return self._queue.waiting

    @property
    def running(self) -> int:
        """Number of requests that are being answered."""
        return self._queue.running

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        return self._queue.counters

    def submit(self, request: AskRequest, on_event: OnEvent | None = None) -> Ticket:
        """Accept a request.

        Args:
            request: What is asked.
            on_event: Called with every event of it, one at a time, from threads of the engine. It
                must not block, since others' requests wait for it. Without it nothing is streamed.

        Raises:
            QueueFull: `max_waiting` requests are already waiting.
            ShuttingDown: The engine takes no more requests.
        """
        return self._queue.submit(request, on_event)

    def drain(self, seconds: float) -> bool:
        """Refuse new requests, and wait for those that were accepted.

        Returns:
            Whether all of them ended in time.
        """
        return self._queue.drain(seconds)

    def close(self) -> None:
        """Cancel all requests and end the threads."""
        self._queue.close()
        self._workers.join()

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the engine."""
        self.close()
