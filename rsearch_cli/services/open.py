"""The services of a run: its cache, its purse, and a gateway for everything it asks.

Place in the path: opened once by a command, handed to the executor of searches and to the judge. On
failure: opening touches nothing and cannot fail; closing stores what the purse has counted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.flow import Flow
from rsearch_cli.services.gateway import Gateway
from rsearch_cli.services.purse import Purse

JUDGE = "judge"
"""Name of the judge's service."""

POLICY = "policy"
"""Name of the service of a policy on a server; every other name is a search service."""

LOCAL = "local"
"""Name under which the purse counts searches that are answered within this process."""


class Services:
    """One gateway for every service, over one cache and one purse.

    Attributes:
        cache: The answers.
        purse: The money.
    """

    def __init__(self, recipe: Recipe, cache: AnswerCache, purse: Purse) -> None:
        """Take the recipe for the flow of each service."""
        self.cache = cache
        self.purse = purse
        self._recipe = recipe
        self._gateways: dict[str, Gateway] = {}
        self._guard = threading.Lock()

    def gateway(self, service: str) -> Gateway:
        """The gateway to a service; "" is for what answers within this process."""
        with self._guard:
            if service not in self._gateways:
                self._gateways[service] = self._open(service)
            return self._gateways[service]

    def _open(self, service: str) -> Gateway:
        if not service:
            return Gateway(LOCAL, self.cache, self.purse, flow=None)
        recipe = self._recipe
        outside = {JUDGE: recipe.reward.judge.service, POLICY: recipe.policy.endpoint.service}
        settings = outside.get(service, recipe.search.service)
        return Gateway(service, self.cache, self.purse, Flow(service, settings))


@contextmanager
def open_services(
    recipe: Recipe, run_folder: Path | None, cache_folder: Path | None = None
) -> Iterator[Services]:
    """Open the services of a recipe.

    Args:
        recipe: The whole of it: `search`, `reward.judge`, `budget` and `cache` count here.
        run_folder: Where the purse keeps its state; None forgets it at the end.
        cache_folder: Where the answers are; None takes the user's cache folder.
    """
    with (
        AnswerCache(cache_folder, recipe.cache.mode) as cache,
        Purse(run_folder, recipe.budget.max_usd) as purse,
    ):
        yield Services(recipe, cache, purse)
