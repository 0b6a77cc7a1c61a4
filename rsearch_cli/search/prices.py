"""The expected price of a search: what the budget reserves, and what `rsearch estimate` counts."""

from __future__ import annotations

from rsearch_cli.recipe.schema import SearchConfig
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.search.sources import Found, SearchSource, load_openers
from rsearch_cli.services.validation import is_finite

UNKNOWN_USD = 0.007
"""Price of a request to a service that states none, in USD."""


def usd_per_search(
    name: str, search: SearchConfig, source: SearchSource | type[SearchSource] | None
) -> float:
    """Return the expected price of one request to a source, in USD.

    The first of these that applies: the recipe's price for this source, 0 for a free one, the
    recipe's price for all that are not free, the list price, `UNKNOWN_USD`.

    Args:
        name: Name of the source.
        search: The recipe's section.
        source: The source or its class; None if that is not known.
    """
    own = search.sources[name].usd_per_search
    if own is not None:
        return own
    if source is not None and not source.service:
        return 0.0
    listed = None if source is None else source.price(name, search)
    if listed == 0.0:
        return 0.0
    known = (price for price in (search.usd_per_search, listed) if price is not None)
    return next(known, UNKNOWN_USD)


def find_charge(found: Found, expected_usd: float) -> object:
    """Return what a search cost in USD by the word of its service, unchecked; None if it says none.

    Args:
        found: Its result.
        expected_usd: The expected price.
    """
    if found.usd is None and is_finite(found.times):
        return found.times * expected_usd
    return found.times if found.usd is None else found.usd


def find_prices(search: SearchConfig) -> dict[str, float]:
    """Return the expected price of a request by source name, in USD, without opening a source.

    Raises:
        RecipeError: A source is of a kind that does not exist, or has an option that is not valid.
        SourceError: A kind cannot be loaded.
    """
    openers = load_openers(search)
    return {
        name: usd_per_search(name, search, getattr(openers[config.type], "source", None))
        for name, config in search.sources.items()
    }


def outside_load(search: SearchConfig) -> tuple[float, ServiceConfig]:
    """Return how much of a search leaves this process, and the strictest limits on that.

    Returns:
        The share in [0, 1] of the sources that ask a service, and the limits of the recipe and of
        those services.

    Raises:
        RecipeError: A source is of a kind that does not exist.
        SourceError: A kind cannot be loaded.
    """
    openers = load_openers(search)
    sources = [getattr(openers[c.type], "source", None) for c in search.sources.values()]
    outside = [source for source in sources if source is None or source.service]
    limits = search.service
    for source in outside:
        limits = limits if source is None else source.limits.apply(limits)
    return len(outside) / len(sources), limits
