"""Opens the search layer of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import Services
from rsearch_cli.types import Passage


def open_executor(
    recipe: Recipe, corpus: Callable[[], Iterable[Passage]], services: Services
) -> PlanExecutor:
    """Open the sources of a recipe and return the executor that runs plans on them.

    Args:
        recipe: Its search and cache sections are read.
        corpus: Returns the passages that come with the question set.
        services: Client and cache of the sources; the caller closes the executor before them.
    """
    sources = open_sources(recipe.search, corpus, offline=recipe.cache.mode == "offline")
    return PlanExecutor(sources, recipe.search, services)
