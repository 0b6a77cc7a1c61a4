"""The local Exa server against exa-py's own classes: neither may drift from the other."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import exa
import exa_py.api
import pytest
from exa_py import AsyncExa
from exa_py.api import SEARCH_OPTIONS_TYPES, Result, SearchResponse, to_camel_case, to_snake_case

from rsearch_cli.search.exa import (
    CATEGORIES,
    Category,
    ExaOptions,
    ExaSource,
    SearchType,
)
from rsearch_cli.search.exa_client import ExaClient
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.services.outcomes import PermanentFailure


@pytest.fixture
def server() -> Iterator[exa.ExaServer]:
    with exa.ExaServer() as server:
        yield server


def send(server: exa.ExaServer, **arguments: Any) -> SearchResponse:
    async def search() -> SearchResponse:
        async with AsyncExa(server.api_key, server.url) as client:
            return await client.search(**arguments)

    return asyncio.run(search())


def test_every_field_of_an_answer_is_one_that_the_client_knows() -> None:
    answer = exa.make_answer({"query": "q"}, exa.make_pages({"query": "q"}))
    page = answer.pop("results")[0]
    assert to_snake_case(page).keys() <= {field.name for field in dataclasses.fields(Result)}
    known = {field.name for field in dataclasses.fields(SearchResponse)} | {"request_id"}
    assert to_snake_case(answer).keys() <= known


def test_an_answer_fills_the_clients_classes(server: exa.ExaServer) -> None:
    contents = {"text": {"max_characters": 120}}
    response = send(server, query="lamp makers", num_results=2, contents=contents)
    assert isinstance(response, SearchResponse)
    assert [type(result) for result in response.results] == [Result, Result]
    first = response.results[0]
    assert first.url == first.id != response.results[1].url
    assert first.title == "Lamp Makers, part 1"
    assert first.published_date == "2024-05-01T00:00:00.000Z"
    assert len(first.text) == 120
    assert first.text.startswith("Sentence 1 of part 1 tells of lamp makers in the web.")
    assert response.cost_dollars.total == pytest.approx(exa.USD_PER_SEARCH)
    assert response.search_time == 12.5
    assert response.results[0].score is None


def test_the_server_takes_nothing_that_the_client_has_no_argument_for() -> None:
    arguments = to_camel_case(dict.fromkeys(SEARCH_OPTIONS_TYPES, 0))
    assert exa.FIELDS.keys() <= arguments.keys()


def test_our_categories_and_types_are_those_of_the_client() -> None:
    assert get_args(Category) == get_args(exa_py.api.Category)
    assert get_args(SearchType) == get_args(exa_py.api.SearchType)
    assert set(CATEGORIES.values()) <= set(get_args(Category))


@pytest.mark.parametrize("kind", get_args(exa_py.api.SearchType))
def test_every_type_of_search_can_be_asked_for(server: exa.ExaServer, kind: str) -> None:
    source = ExaSource("News", ExaOptions(type=kind), ExaClient(server.api_key, server.url))
    found = asyncio.run(source.search(SearchRequest("lamps", top_k=2)))
    assert server.requests[0].body["type"] == kind
    assert (len(found.passages), found.usd) == (2, exa.USD_PER_SEARCH)


def test_the_source_sends_what_exa_expects(server: exa.ExaServer) -> None:
    options = ExaOptions(
        include_domains=["a.example", "b.example"],
        start_published_date="2024-01-01",
        end_published_date="2024-06-30",
        max_characters=300,
    )
    source = ExaSource("Academy", options, ExaClient(server.api_key, server.url))
    asyncio.run(source.search(SearchRequest("who taught her", ("Tessa Korrin", "Port Ellow"), 4)))
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/search")
    assert request.headers["x-api-key"] == server.api_key
    assert request.body == {
        "query": "who taught her Tessa Korrin Port Ellow",
        "numResults": 4,
        "category": "publication",
        "includeDomains": ["a.example", "b.example"],
        "startPublishedDate": "2024-01-01",
        "endPublishedDate": "2024-06-30",
        "contents": {"text": {"maxCharacters": 300}},
    }


def test_what_is_not_asked_for_is_not_sent(server: exa.ExaServer) -> None:
    source = ExaSource("General", ExaOptions(), ExaClient(server.api_key, server.url))
    asyncio.run(source.search(SearchRequest("lamps")))
    assert server.requests[0].body == {
        "query": "lamps",
        "numResults": 3,
        "contents": {"text": {"maxCharacters": 1000}},
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"query": ""}, "query is required"),
        ({"query": "q", "num_results": 101}, "numResults must be between 1 and 100"),
        ({"query": "q", "category": "research paper"}, "invalid category research paper"),
        ({"query": "q", "type": "keyword"}, "invalid type keyword"),
        ({"query": "q", "pages": 1}, "unrecognized key pages"),
        ({"query": "q", "num_results": "3"}, "invalid type of numResults"),
        (
            {"query": "q", "contents": {"text": {"maxCharacters": 0}}},
            "contents.text.maxCharacters must be a positive integer",
        ),
    ],
)
def test_the_server_refuses_what_exa_refuses(
    server: exa.ExaServer, arguments: dict[str, Any], words: str
) -> None:
    service = ExaClient(server.api_key, server.url)
    with pytest.raises(PermanentFailure) as caught:
        asyncio.run(service.search(**arguments))
    assert str(caught.value) == f"Exa at {server.url} answered 400 ({words})"


def test_the_server_runs_by_itself_and_counts_for_others(repository: Path) -> None:
    command = [sys.executable, str(repository / "tests/servers/exa.py"), "--latency-ms", "1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        service = ExaClient(told["api_key"], told["url"])

        async def ask() -> None:
            for query in ("lamps", "lamps", "glass"):
                await service.search(query)

        asyncio.run(ask())
        with urllib.request.urlopen(f"{told['url']}/counts", timeout=10) as reply:
            counts = json.load(reply)
        last_words, _ = process.communicate("", timeout=20)
    assert counts == json.loads(last_words)
    assert counts == {
        "requests": 3,
        "answered": 3,
        "failed": {},
        "distinct": 2,
        "repeated": 1,
        "most_at_once": 1,
    }
    assert process.returncode == 0
