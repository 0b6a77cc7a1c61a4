"""The services of a run: its cache, its budget, and a client for everything it asks.

Place in the path: opened once by a command, handed to the executor of searches and to the judge. On
failure: opening touches nothing and cannot fail; closing stores what the budget has counted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.client import ServiceClient
from rsearch_cli.services.retry import RetryPolicy

JUDGE = "judge"
"""Name of the judge's service."""

POLICY = "policy"
"""Name of the service of a policy on a server; every other name is a search service."""

LOCAL = "local"
"""Name under which the budget counts searches that are answered within this process."""


class Services:
    """One client for every service, over one cache and one budget.

    Attributes:
        cache: The answers.
        budget: The money.
    """

    def __init__(self, recipe: Recipe, cache: AnswerCache, budget: Budget) -> None:
        """Take the recipe for the flow of each service."""
        self.cache = cache
        self.budget = budget
        self._recipe = recipe
        self._clients: dict[str, ServiceClient] = {}
        self._guard = threading.Lock()

    def client(self, service: str) -> ServiceClient:
        """The client to a service; "" is for what answers within this process."""
        with self._guard:
            if service not in self._clients:
                self._clients[service] = self._open(service)
            return self._clients[service]

    def _open(self, service: str) -> ServiceClient:
        if not service:
            return ServiceClient(LOCAL, self.cache, self.budget, flow=None)
        recipe = self._recipe
        outside = {JUDGE: recipe.reward.judge.service, POLICY: recipe.policy.endpoint.service}
        settings = outside.get(service, recipe.search.service)
        return ServiceClient(service, self.cache, self.budget, RetryPolicy(service, settings))


@contextmanager
def open_services(
    recipe: Recipe, run_folder: Path | None, cache_folder: Path | None = None
) -> Iterator[Services]:
    """Open the services of a recipe.

    Args:
        recipe: The whole of it: `search`, `reward.judge`, `budget` and `cache` count here.
        run_folder: Where the budget keeps its state; None forgets it at the end.
        cache_folder: Where the answers are; None takes the user's cache folder.
    """
    with (
        AnswerCache(cache_folder, recipe.cache.mode) as cache,
        Budget(run_folder, recipe.budget.max_usd) as budget,
    ):
        yield Services(recipe, cache, budget)
