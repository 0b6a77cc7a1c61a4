"""The source of type `wikipedia` against a local MediaWiki."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mediawiki import MediaWikiServer, WikiPage

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.sources import SearchRequest, open_sources
from rsearch_cli.search.wikipedia import (
    MOST_QUERY_CHARS,
    WIKIMEDIA_LIMITS,
    WikipediaSource,
    as_query,
)
from rsearch_cli.services.http import CONTACT_VARIABLE
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.retry import NO_LIMITS
from rsearch_cli.types import Passage

PAGES = [
    WikiPage("Ellow", "Ellow may refer to: Port Ellow, Ellow Bay.", disambiguation=True),
    WikiPage("Port Ellow", "Port Ellow is a harbour town. Its mayor is Imre Sandoval."),
    WikiPage("Tessa Korrin", "Tessa Korrin (born 1901 in Port Ellow) was a glass maker."),
    WikiPage("Brindle Works", "Brindle Works is a lamp maker.", "It was founded by Tessa Korrin."),
    WikiPage("T. Korrin", redirect="Tessa Korrin"),
    WikiPage("Born", "Birth is the beginning of life; one is born."),
]


@pytest.fixture
def wiki() -> Iterator[MediaWikiServer]:
    with MediaWikiServer(PAGES) as server:
        yield server


def open_source(**options: Any) -> WikipediaSource:
    config = SourceConfig(type="wikipedia", options=options)
    source = open_sources(SearchConfig(sources={"General": config}), list)["General"]
    assert isinstance(source, WikipediaSource)
    return source


def ask(url: str, query: str, *names: str, top_k: int = 3, **options: Any) -> list[Passage]:
    source = open_source(url=url, **options)

    async def once() -> list[Passage]:
        try:
            return await source.search(SearchRequest(query, names, top_k, match_titles=bool(names)))
        finally:
            await source.close()

    return asyncio.run(once())


def titles(passages: list[Passage]) -> list[str]:
    return [passage.title for passage in passages]


def test_a_passage_is_the_introduction_with_the_address_of_its_page(wiki) -> None:
    (found,) = ask(wiki.url, "lamp founded Tessa", top_k=1)
    assert found == Passage(
        f"{wiki.url}/wiki/Brindle_Works", "Brindle Works", "Brindle Works is a lamp maker."
    )
    (request,) = wiki.requests
    assert request.query["gsrsearch"] == "lamp founded Tessa"


def test_nothing_found_is_an_answer(wiki) -> None:
    assert ask(wiki.url, "zeppelin") == []
    assert ask(wiki.url, "?") == []
    assert len(wiki.requests) == 1


def test_pages_with_any_word_join_those_with_all_if_these_are_too_few(wiki) -> None:
    # The page about Tessa Korrin does not say "founded", which another one does.
    found = ask(wiki.url, "was founded Tessa Korrin", top_k=2)
    assert titles(found) == ["Brindle Works", "Tessa Korrin"]
    assert [request.query["gsrsearch"] for request in wiki.requests] == [
        "was founded Tessa Korrin",
        "founded OR Tessa OR Korrin",
    ]
    assert titles(ask(wiki.url, "zeppelin", "Nobody", "Tessa Korrin")) == ["Tessa Korrin"]
    assert len(wiki.requests) == 4, "a title is enough"


def test_the_order_is_that_of_the_search_and_no_page_lists_meanings(wiki) -> None:
    assert titles(ask(wiki.url, "Port Ellow", top_k=2)) == ["Port Ellow", "Tessa Korrin"]


def test_names_are_looked_up_as_titles_in_one_request(wiki) -> None:
    # As a query, all of these words would find nothing.
    names = ("American", "Ellow", "T. Korrin", "Port Ellow", "a|b", "Tessa Korrin")
    found = ask(wiki.url, "born", *names, top_k=2)
    assert titles(found) == ["Tessa Korrin", "Port Ellow"]
    (request,) = wiki.requests
    assert request.query["titles"] == "American|Ellow|T. Korrin|Port Ellow|Tessa Korrin"


def test_a_second_request_searches_if_the_titles_are_too_few(wiki) -> None:
    assert titles(ask(wiki.url, "founded", "T. Korrin")) == ["Tessa Korrin", "Brindle Works"]
    assert wiki.requests[1].query["gsrsearch"] == "founded Tessa Korrin"
    assert titles(ask(wiki.url, "harbour", "Ellow", top_k=1)) == ["Port Ellow"]
    assert len(wiki.requests) == 4


def test_names_that_cannot_be_titles_are_not_looked_up(wiki) -> None:
    assert titles(ask(wiki.url, "harbour", "Port [Ellow]", top_k=1)) == ["Port Ellow"]
    assert [request.query.get("titles") for request in wiki.requests] == [None]


def test_more_than_twenty_introductions_take_a_second_request() -> None:
    pages = [WikiPage(f"Lamp {i}", f"Lamp number {i}.") for i in range(1, 41)]
    with MediaWikiServer(pages) as wiki:
        found = ask(wiki.url, "lamp", top_k=25)
        assert [p.text for p in found] == [f"Lamp number {i}." for i in range(1, 26)]
        assert [r.query.get("excontinue") for r in wiki.requests] == [None, "20"]


def test_an_introduction_ends_with_a_sentence(wiki) -> None:
    (found,) = ask(wiki.url, "harbour", top_k=1, max_characters=45)
    assert found.text == "Port Ellow is a harbour town."


def test_a_lagging_wiki_is_asked_again_when_it_says(wiki) -> None:
    wiki.lag = 7.5
    with pytest.raises(TransientFailure, match=r"answered maxlag \(Waiting") as caught:
        ask(wiki.url, "harbour")
    assert caught.value.retry_after == 5
    assert caught.value.free


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("ratelimited", TransientFailure),
        ("internal_api_error_DBQueryError", TransientFailure),
        ("cirrussearch-too-busy-error", TransientFailure),
        ("cirrussearch-parse-error", PermanentFailure),
    ],
)
def test_an_error_inside_an_answer_is_a_failure(wiki, code, failure) -> None:
    wiki.error = code
    with pytest.raises(failure, match=f"answered {code}"):
        ask(wiki.url, "harbour")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"query": {"pages": [1]}},
        {"query": {"pages": [{}]}},
        {"query": {"pages": []}, "continue": {"excontinue": 20}},
    ],
)
def test_what_is_no_answer_is_a_failure(wiki, answer) -> None:
    wiki.respond = lambda request: (200, answer)
    with pytest.raises(TransientFailure, match="sent no search results"):
        ask(wiki.url, "harbour")


def test_a_wiki_without_introductions_is_named(wiki) -> None:
    wiki.has_extracts = False
    with pytest.raises(PermanentFailure, match="needs a wiki with the TextExtracts extension"):
        ask(wiki.url, "harbour")


def test_a_refused_client_is_told_to_name_a_contact(wiki, monkeypatch) -> None:
    monkeypatch.setenv(CONTACT_VARIABLE, "me@example.org")
    ask(wiki.url, "harbour")
    assert "(me@example.org)" in wiki.requests[0].headers["user-agent"]
    monkeypatch.setattr("rsearch_cli.search.wikipedia.user_agent", lambda: "python-httpx/0.28")
    with pytest.raises(PermanentFailure, match=f"answered 403 .*set {CONTACT_VARIABLE} to"):
        ask(wiki.url, "harbour")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ('"Spider-Man" intitle:x -y !z', "Spider-Man intitle x y z"),
        ("this OR that NOT (those)", "this or that not those"),
        ("who? what*~2", "who what 2"),
        ("Vyvyan's  Oöp", "Vyvyan's Oöp"),
    ],
)
def test_a_query_has_no_operators(text, query) -> None:
    assert as_query(text) == query


def test_a_query_fits(wiki) -> None:
    assert ask(wiki.url, "harbour " * 100)
    assert len(wiki.requests[0].query["gsrsearch"]) <= MOST_QUERY_CHARS
    assert len(as_query("x" * 500)) == MOST_QUERY_CHARS


@pytest.mark.parametrize(
    "options",
    [
        {"language": "EN"},
        {"language": "en.evil"},
        {"url": "ftp://wiki.example"},
        {"url": "https://wiki.example", "language": "de"},
    ],
)
def test_bad_options_are_refused(options) -> None:
    with pytest.raises(RecipeValueError):
        open_source(**options)


def test_the_address_is_that_of_the_language_or_the_wiki() -> None:
    addresses = [
        open_source(language="de").fingerprint,
        open_source(url="https://wiki.example/").fingerprint,
        open_source(url="https://wiki.example/api.php").fingerprint,
    ]
    assert addresses == [
        "wikipedia/v1/https://de.wikipedia.org/w/api.php/1000",
        "wikipedia/v1/https://wiki.example/w/api.php/1000",
        "wikipedia/v1/https://wiki.example/api.php/1000",
    ]


def test_wikimedia_is_asked_politely() -> None:
    assert open_source().limits == WIKIMEDIA_LIMITS
    assert open_source(url="https://de.wiktionary.org").limits == WIKIMEDIA_LIMITS
    assert open_source(url="https://notwikipedia.org").limits == NO_LIMITS


def test_the_whole_article_of_a_passage_can_be_read(wiki) -> None:
    async def once(title: str) -> str | None:
        source = open_source(url=wiki.url)
        try:
            return await source.read(Passage(f"{wiki.url}/wiki/x", title, "Brindle"))
        finally:
            await source.close()

    text = asyncio.run(once("Brindle Works"))
    assert text == "Brindle Works is a lamp maker.\n\nIt was founded by Tessa Korrin."
    assert asyncio.run(once("Gone")) is None
