"""The services of a run: its event loop, cache and budget, and one client per service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.client import ServiceClient
from rsearch_cli.services.event_loop import EventLoop
from rsearch_cli.services.retry import NO_LIMITS, CallLimits, RetryPolicy

JUDGE = "judge"
"""Name of the judge's service."""

POLICY = "policy"
"""Name of the service of a policy on a server."""

TEACHER = "teacher"
"""Name of the service of the server in `sft.teacher`."""

WRITER = "dialogue"
"""Name of the service of `dialogue.endpoint`; every name that is not here is a search service."""

READ = "read"
"""Name of the service of the pages that `search.read_top` reads."""

ROBOTS = "robots"
"""Name of the service of the robots.txt of their sites."""

LOCAL = "local"
"""Name under which the budget counts searches that run within this process."""


class Services:
    """One client per service, over one event loop, one cache and one budget.

    Args:
        recipe: Its `search`, `reward.judge`, `policy.endpoint`, `sft.teacher` and
            `dialogue.endpoint` configure the services.
        cache: The stored answers.
        budget: The spending limit.
        loop: Everything that waits for the network runs on it; None starts one when needed.
    """

    def __init__(
        self,
        recipe: Recipe,
        cache: AnswerCache,
        budget: Budget,
        loop: EventLoop | None = None,
    ) -> None:
        self.cache = cache
        self.budget = budget
        self.loop = loop or EventLoop()
        self._recipe = recipe
        self._clients: dict[tuple[str, CallLimits], ServiceClient] = {}
        self._opening = threading.Lock()

    def client(self, service: str, limits: CallLimits = NO_LIMITS) -> ServiceClient:
        """Return the client of a service.

        Args:
            service: Its name; "" is the service of sources within this process.
            limits: What its rules allow. The same service under other limits, such as a mirror of
                one's own, has a client of its own.
        """
        key = (service, limits)
        with self._opening:
            if key not in self._clients:
                self._clients[key] = self._open(service, limits)
            return self._clients[key]

    def _open(self, service: str, limits: CallLimits) -> ServiceClient:
        if not service:
            return ServiceClient(LOCAL, self.cache, self.budget, retry=None)
        recipe = self._recipe
        outside = {
            JUDGE: recipe.reward.judge.service,
            POLICY: recipe.policy.endpoint.service,
            TEACHER: recipe.sft.teacher.service,
            WRITER: recipe.dialogue.endpoint.service,
            READ: recipe.search.read_service,
            ROBOTS: recipe.search.read_service,
        }
        settings = limits.apply(outside.get(service, recipe.search.service))
        return ServiceClient(service, self.cache, self.budget, RetryPolicy(service, settings))


@contextmanager
def open_services(
    recipe: Recipe, run_folder: Path | None, cache_folder: Path | None = None
) -> Iterator[Services]:
    """Open the services of a recipe.

    Args:
        recipe: `search`, `reward.judge`, `policy.endpoint`, `sft.teacher`, `dialogue.endpoint`,
            `budget` and `cache` are read.
        run_folder: Where the budget keeps its state; None keeps it in memory.
        cache_folder: Where the answers are stored; None uses the user's cache folder.
    """
    with (
        AnswerCache(cache_folder, recipe.cache.mode) as cache,
        Budget(run_folder, recipe.budget.max_usd) as budget,
        EventLoop() as loop,
    ):
        yield Services(recipe, cache, budget, loop)
