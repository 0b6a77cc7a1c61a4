"""Tavily and Serper: what is sent, what it costs, and refusals that are theirs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serper
import tavily

from rsearch_cli.errors import AccessDenied, RecipeValueError, SourceError
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.exa import ExaOptions
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.serper import SerperOptions
from rsearch_cli.search.sources import Found, SearchRequest, SearchSource, open_sources
from rsearch_cli.search.tavily import TavilyOptions
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import PlanNode, SearchPlan


@pytest.fixture
def tavily_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tavily.TavilyServer]:
    with tavily.TavilyServer() as server:
        monkeypatch.setenv("TAVILY_API_KEY", tavily.API_KEY)
        monkeypatch.setenv("TAVILY_BASE_URL", f"{server.url}/")
        yield server


@pytest.fixture
def serper_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[serper.SerperServer]:
    with serper.SerperServer() as server:
        monkeypatch.setenv("SERPER_API_KEY", serper.API_KEY)
        monkeypatch.setenv("SERPER_BASE_URL", server.url)
        yield server


def open_one(kind: str, name: str = "General", **options: Any) -> SearchSource:
    config = SourceConfig(type=kind, options=options)
    return open_sources(SearchConfig(sources={name: config}), list)[name]


def ask(source: SearchSource, query: str = "lamps", *names: str, top_k: int = 3) -> Found:
    async def search() -> Any:
        try:
            return await source.search(SearchRequest(query, names, top_k))
        finally:
            await source.close()

    found: Found = asyncio.run(search())
    return found


def test_tavily_gets_what_it_expects(tavily_server: tavily.TavilyServer) -> None:
    ask(open_one("tavily"), "who taught her", "Tessa Korrin", "Port Ellow", top_k=4)
    options = {
        "topic": "finance",
        "search_depth": "advanced",
        "include_domains": ["a.example"],
        "exclude_domains": ["b.example"],
        "start_date": "2024-01-01",
        "end_date": "2024-06-30",
    }
    found = ask(open_one("tavily", **options, max_characters=140), top_k=50)
    plain, full = (request.body for request in tavily_server.requests)
    assert plain == {
        "query": "who taught her Tessa Korrin Port Ellow",
        "max_results": 4,
        "include_usage": True,
        "topic": "general",
        "search_depth": "basic",
    }
    assert full == {"query": "lamps", "max_results": 20, "include_usage": True, **options}
    first = found.passages[0]
    assert (first.title, first.score) == ("Lamps, part 1", 0.9)
    assert first.text.endswith(".") and len(first.text) <= 140
    assert len(found.passages) == 20


def test_tavily_searches_news_for_news(tavily_server: tavily.TavilyServer) -> None:
    sources = [open_one("tavily", name) for name in ("News", "Academy")]
    for source in sources:
        ask(source)
    assert [r.body["topic"] for r in tavily_server.requests] == ["news", "general"]
    assert [source.cache_days for source in sources] == [1.0, 30.0]
    assert open_one("tavily", topic="news").fingerprint == sources[0].fingerprint


def test_names_that_would_make_tavilys_query_too_long_are_left_out(
    tavily_server: tavily.TavilyServer,
) -> None:
    ask(open_one("tavily"), "who", "x" * 390, "y" * 50, "Port Ellow")
    assert tavily_server.requests[0].body["query"] == f"who {'x' * 390}"


def test_serper_gets_what_it_expects(serper_server: serper.SerperServer) -> None:
    ask(open_one("serper"), "who taught her", "Tessa Korrin")
    found = ask(open_one("serper", gl="de", hl="de", time_range="week"), top_k=15)
    ask(open_one("serper", endpoint="scholar"), top_k=15)
    plain, full, papers = (request.body for request in serper_server.requests)
    assert plain == {"q": "who taught her Tessa Korrin"}
    assert full == {"q": "lamps", "num": 15, "gl": "de", "hl": "de", "tbs": "qdr:w"}
    assert papers == {"q": "lamps"}, "Google Scholar has one size of page"
    text = ask(open_one("serper", endpoint="scholar")).passages[0].text
    assert text.endswith("T Korrin - Port Ellow Press, 2017"), "who wrote it, and when"
    assert len(found.passages) == 15


def test_serper_searches_what_the_name_of_the_source_says(
    serper_server: serper.SerperServer,
) -> None:
    sources = [open_one("serper", name) for name in ("General", "News", "Academy")]
    for source in sources:
        assert len(ask(source).passages) == 3
    assert [request.path for request in serper_server.requests] == ["/search", "/news", "/scholar"]
    assert [source.cache_days for source in sources] == [30.0, 1.0, 30.0]
    assert open_one("serper", endpoint="news").fingerprint == sources[1].fingerprint


@pytest.mark.parametrize(
    ("settings", "usd"),
    [
        ("{type: tavily}", 0.008),
        ("{type: tavily, options: {search_depth: advanced}}", 0.016),
        ("{type: tavily, usd_per_search: 0.005}", 0.005),
        ("{type: tavily, usd_per_search: 0}", 0.0),
    ],
)
def test_credits_are_booked_at_the_price_of_the_users_plan(
    tavily_server: tavily.TavilyServer,
    tmp_path: Path,
    settings: str,
    usd: float,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = ['protocol.sources={General: "the web"}', f"search.sources={{General: {settings}}}"]
    assert spend(tmp_path / "one", *overrides) == pytest.approx(usd)
    # A depth that Tavily chose by itself.
    respond = tavily_server.respond
    tavily_server.respond = lambda request: (
        200, respond(request)[1] | {"usage": {"credits": 2 if "advanced" not in settings else 4}}
    )  # fmt: skip
    assert spend(tmp_path / "two", *overrides) == pytest.approx(2 * usd)
    tavily_server.respond = lambda request: (200, respond(request)[1] | {"usage": {"credits": "1"}})
    assert spend(tmp_path / "three", *overrides) == pytest.approx(usd)


def spend(folder: Path, *overrides: str) -> float:
    recipe = load_recipe("quickstart", overrides).recipe
    with (
        open_services(recipe, folder / "run", folder / "cache") as services,
        PlanExecutor(open_sources(recipe.search, list), recipe.search, services) as executor,
    ):
        [[result]] = executor.execute([SearchPlan((PlanNode("A", "lamps", "General"),), ())])
        assert result.passages
        return services.budget.snapshot().total.usd


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (432, "This request exceeds your plan's set usage limit."),
        (433, "This request exceeds the pay-as-you-go limit."),
    ],
)
def test_a_used_up_plan_of_tavily_stops_the_run(
    tavily_server: tavily.TavilyServer, status: int, words: str
) -> None:
    tavily_server.refuse = status, words
    with pytest.raises(AccessDenied) as caught:
        ask(open_one("tavily"))
    assert str(caught.value) == (
        f"Tavily at {tavily_server.url} answered {status} ({words}); check TAVILY_API_KEY, see "
        "https://app.tavily.com"
    )


def test_an_empty_account_at_serper_stops_the_run(serper_server: serper.SerperServer) -> None:
    serper_server.refuse = 400, "Not enough credits"
    with pytest.raises(AccessDenied) as caught:
        ask(open_one("serper"))
    assert str(caught.value) == (
        f"Serper at {serper_server.url} answered 400 (Not enough credits); check SERPER_API_KEY, "
        "see https://serper.dev/api-keys"
    )


def test_a_development_key_of_tavily_is_used_within_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = {}
    for key in ("tvly-dev-0123456789", "tvly-prod-0123456789"):
        monkeypatch.setenv("TAVILY_API_KEY", key)
        rates[key] = open_one("tavily").limits.requests_per_second
    assert list(rates.values()) == [pytest.approx(100 / 60), float("inf")]


@pytest.mark.parametrize("kind", ["serper", "tavily"])
def test_an_address_that_is_none_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{kind.upper()}_BASE_URL", "proxy.example:8080")
    with pytest.raises(SourceError, match=f"{kind.upper()}_BASE_URL is not an http address"):
        open_one(kind)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("tavily", {"start_date": "May 2024"}, "must be a day as 'YYYY-MM-DD'"),
        ("tavily", {"start_date": "2024-02-02", "end_date": "2024-02-01"}, "is after end_date"),
        ("tavily", {"start_date": "2024-02-02", "time_range": "day"}, "exclude each other"),
        ("tavily", {"search_depth": "deep"}, "search_depth"),
        ("serper", {"gl": "Germany"}, "gl"),
        ("serper", {"endpoint": "images"}, "endpoint"),
    ],
)
def test_a_wrong_option_is_named(kind: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeValueError, match=words):
        open_one(kind, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("exa", ExaOptions), ("serper", SerperOptions), ("tavily", TavilyOptions)],
)
def test_the_documentation_names_every_option(
    kind: str, options: type[BaseConfig], repository: Path
) -> None:
    page = (repository / "docs/search.md").read_text(encoding="utf-8")
    section = page.partition(f"### `{kind}`")[2].partition("\n### ")[0]
    assert [name for name in options.model_fields if f"| `{name}` |" not in section] == []
