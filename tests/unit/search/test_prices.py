"""The expected price of a search: from the recipe, from price lists, and for unknown kinds."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search import sources
from rsearch_cli.search.prices import UNKNOWN_USD, find_prices
from rsearch_cli.search.sources import SearchSource, opens


class Metered(SearchSource):
    """A kind of another package, at a list price."""

    service = "metered"
    usd_per_search = 0.002


@opens(Metered)
def open_metered(configs: Any, corpus: Any, index_dir: Any) -> Any:
    raise AssertionError("an estimate opens nothing")


def open_silent(configs: Any, corpus: Any, index_dir: Any) -> Any:
    raise AssertionError("an estimate opens nothing")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint(name, f"{__name__}:open_{name}", sources.GROUP) for name in ("metered", "silent")
    ]
    monkeypatch.setattr(sources, "entry_points", lambda group: points)


def price(kind: str, *, own: float | None = None, top_k: int = 3, **settings: Any) -> float:
    options = {"url": "http://127.0.0.1:1"} if kind == "http" else settings.pop("options", {})
    config = SourceConfig(type=kind, usd_per_search=own, options=options)
    search = SearchConfig(sources={"General": config}, top_k=top_k, **settings)
    return find_prices(search)["General"]


@pytest.mark.parametrize(
    ("kind", "listed"),
    [
        *((kind, 0.0) for kind in ("bm25", "dense", "hybrid", "http")),
        ("exa", 0.007),
        ("serper", 0.001),
        ("tavily", 0.008),
        ("metered", 0.002),
        ("silent", UNKNOWN_USD),
    ],
)
def test_every_kind_has_its_price(kind: str, listed: float) -> None:
    assert price(kind) == listed
    assert price(kind, own=0.5) == 0.5
    assert price(kind, own=0.0) == price(kind, own=0.0, usd_per_search=0.25) == 0.0
    assert price(kind, usd_per_search=0.25) == (0.25 if listed else 0.0)


def test_the_price_in_credits_follows_the_depth_and_the_number_of_results() -> None:
    assert price("tavily", options={"search_depth": "advanced"}) == pytest.approx(0.016)
    assert price("serper", top_k=11) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("kind", "top_k", "usd"),
    [(None, 10, 0.007), (None, 12, 0.009), ("lite", 3, 0.004), ("deep-reasoning", 11, 0.016)],
)
def test_exas_price_follows_the_type_and_the_number_of_pages(
    kind: str | None, top_k: int, usd: float
) -> None:
    assert price("exa", top_k=top_k, options={"type": kind}) == pytest.approx(usd)


def test_a_wrong_option_is_named_before_anything_is_opened() -> None:
    with pytest.raises(RecipeValueError, match=r"search\.sources\.General\.options\.type"):
        price("exa", options={"type": "cheap"})
