"""The source of type `searxng` against a local instance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from searxng import MAKER, TOWN, SearxngServer

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.searxng import SearxngSource
from rsearch_cli.search.sources import SearchRequest, open_sources
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.types import Passage


@pytest.fixture
def instance() -> Iterator[SearxngServer]:
    with SearxngServer() as server:
        yield server


def open_source(name: str = "General", **options: Any) -> SearxngSource:
    config = SourceConfig(type="searxng", options=options)
    source = open_sources(SearchConfig(sources={name: config}), list)[name]
    assert isinstance(source, SearxngSource)
    return source


def ask(source: SearxngSource, query: str, *names: str, top_k: int = 3) -> list[Passage]:
    async def once() -> list[Passage]:
        try:
            return await source.search(SearchRequest(query, names, top_k))
        finally:
            await source.close()

    return asyncio.run(once())


def test_a_search_is_one_request(instance) -> None:
    found = ask(open_source(url=instance.url), "born", "Tessa Korrin", top_k=1)
    assert found == [Passage("https://a.example/1", "Tessa Korrin", "A glass maker.", score=1.0)]
    assert [r.query for r in instance.requests] == [{"q": "born Tessa Korrin", "format": "json"}]


@pytest.mark.parametrize(
    ("name", "options", "sent"),
    [
        ("News", {}, {"categories": "news"}),
        ("Academy", {}, {"categories": "science"}),
        ("News", {"categories": ["it", "science"]}, {"categories": "it,science"}),
        ("News", {"engines": ["brave", "bing news"]}, {"engines": "brave,bing news"}),
        (
            "General",
            {"language": "de-AT", "time_range": "week", "safesearch": 0},
            {"language": "de-AT", "time_range": "week", "safesearch": "0"},
        ),
    ],
)
def test_options_are_parameters(instance, name, options, sent) -> None:
    source = open_source(name, url=instance.url, **options)
    ask(source, "lamps")
    assert instance.requests[0].query == {"q": "lamps", "format": "json", **sent}
    assert source.cache_days == (1.0 if sent.get("categories") == "news" else 30.0)


def test_without_json_the_instance_says_how_to_allow_it(instance) -> None:
    instance.formats = {"html"}
    with pytest.raises(PermanentFailure) as caught:
        ask(open_source(url=instance.url), "lamps")
    assert "does not allow JSON; add `json` to `search.formats` in its settings" in str(
        caught.value
    )


def test_silent_engines_are_a_failure_only_if_nothing_was_found(instance) -> None:
    instance.silent = [("brave", "Suspended: too many requests"), ("duckduckgo", "CAPTCHA")]
    assert len(ask(open_source(url=instance.url), "lamps")) == 2
    instance.pages = []
    with pytest.raises(TransientFailure, match=r"brave: Suspended: .*, duckduckgo: CAPTCHA"):
        ask(open_source(url=instance.url), "lamps")
    instance.silent = []
    assert ask(open_source(url=instance.url), "lamps") == []


def test_results_without_an_address_are_skipped_and_others_take_their_place(instance) -> None:
    instance.pages = [MAKER | {"url": "magnet:?xt=1"}, TOWN | {"content": None, "score": None}]
    (found,) = ask(open_source(url=instance.url), "lamps", top_k=1)
    assert (found.title, found.text) == ("Port Ellow", "")


@pytest.mark.parametrize("row", [1, {}, MAKER | {"title": 3}, MAKER | {"url": None}])
def test_what_is_no_result_is_a_failure(instance, row) -> None:
    instance.pages = [row]
    with pytest.raises(TransientFailure, match="sent no search results"):
        ask(open_source(url=instance.url), "lamps")


@pytest.mark.parametrize(
    "answer", [[], {}, {"results": 1}, {"results": [], "unresponsive_engines": 1}]
)
def test_what_is_no_answer_is_a_failure(instance, answer) -> None:
    instance.respond = lambda request: (200, answer)
    with pytest.raises(TransientFailure, match="sent no search results"):
        ask(open_source(url=instance.url), "lamps")


@pytest.mark.parametrize(
    "options",
    [{"url": "127.0.0.1:8080"}, {"language": "german"}, {"time_range": "hour"}, {"safesearch": 3}],
)
def test_bad_options_are_refused(options) -> None:
    with pytest.raises(RecipeValueError):
        open_source(**options)
