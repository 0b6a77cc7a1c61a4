"""The kinds of sources that ask a service, each with a local server that speaks its protocol.

The tests of `tests/integration/test_source_contract.py` run on every entry of `SERVICES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import exa
import serper
import tavily
from local_http import LocalServer, Received
from mediawiki import MediaWikiServer, WikiPage
from retriever import Retriever
from searxng import SearxngServer

NOT_RESULTS: tuple[Any, ...] = ([], {}, "text", None, {"error": "x"})
"""JSON that is no search result in any of the protocols."""


# MediaWiki finds pages that contain all words of a query.
_WORDS = "lamp lamps glass makers " + " ".join(map(str, (*range(8), 400, 403, 500)))
_PAGES = [WikiPage(f"Page {i}", f"A page with many words: {_WORDS}.") for i in range(5)]


@dataclass(frozen=True, slots=True)
class SearchService:
    """One kind of source and its server.

    Attributes:
        kind: As `search.sources.<name>.type` writes it.
        server: Its server. It counts what it bills in `usd`, if it bills at all.
        asked: Returns the query of a request.
        malformed: Answers that are no search results, besides `NOT_RESULTS`.
        base_url: Environment variable with its address; "" if `options` holds it.
        key_variable: Environment variable of its key; "" if it has none.
        key: The key that the server accepts.
        denied: Whether 401, 402 and 403 stop the run.
        usd: What the server bills for a search, in USD.
        joins_names: Whether the names that a node's parents found become part of its query.
        options: Options of a source that asks the server.
    """

    kind: str
    server: Callable[..., LocalServer]
    asked: Callable[[Received], str]
    malformed: tuple[Any, ...]
    base_url: str = ""
    key_variable: str = ""
    key: str = ""
    denied: bool = True
    usd: float = 0.0
    joins_names: bool = True
    options: Callable[[LocalServer], Mapping[str, Any]] = field(default=lambda server: {})

    def environment(self, server: LocalServer) -> dict[str, str]:
        """The variables with which a source asks the server."""
        known = {self.base_url: server.url, self.key_variable: self.key}
        return {name: value for name, value in known.items() if name}


SERVICES = (
    SearchService(
        "exa",
        exa.ExaServer,
        lambda request: request.body["query"],
        (
            {"results": None},
            {"results": [1]},
            {"results": [{"title": "no url"}]},
            {"results": [{"url": "https://a.example", "text": ["a"]}]},
        ),
        base_url="EXA_BASE_URL",
        key_variable="EXA_API_KEY",
        key=exa.API_KEY,
        usd=exa.USD_PER_SEARCH,
    ),
    SearchService(
        "http",
        Retriever,
        lambda request: request.body["queries"][0],
        ({"result": []}, {"result": [[1]]}, {"result": [[{"document": {"id": "1"}}]]}),
        key_variable="RETRIEVER_API_KEY",
        key="retriever-key-for-tests-only",
        denied=False,
        options=lambda server: {"url": server.url},
    ),
    SearchService(
        "searxng",
        SearxngServer,
        lambda request: request.query["q"],
        ({"results": None}, {"results": [1]}, {"results": [{"title": "no url"}]}),
        denied=False,
        options=lambda server: {"url": server.url},
    ),
    SearchService(
        "serper",
        serper.SerperServer,
        lambda request: request.body["q"],
        (
            {"organic": None},
            {"organic": [1]},
            {"organic": [{"title": "no link"}]},
            {"organic": [{"link": "https://a.example", "snippet": ["a"]}]},
        ),
        base_url="SERPER_BASE_URL",
        key_variable="SERPER_API_KEY",
        key=serper.API_KEY,
        usd=serper.USD_PER_CREDIT,
    ),
    SearchService(
        "tavily",
        tavily.TavilyServer,
        lambda request: request.body["query"],
        (
            {"results": None},
            {"results": [1]},
            {"results": [{"title": "no url"}]},
            {"results": [{"url": "https://a.example", "content": ["a"]}]},
            {"results": [{"url": "https://a.example", "score": "high"}]},
            {"results": [], "usage": [1]},
        ),
        base_url="TAVILY_BASE_URL",
        key_variable="TAVILY_API_KEY",
        key=tavily.API_KEY,
        usd=tavily.USD_PER_CREDIT,
    ),
    SearchService(
        "wikipedia",
        partial(MediaWikiServer, _PAGES),
        lambda request: request.query["gsrsearch"],
        ({"query": {"pages": [1]}}, {"query": {"pages": [{}]}}),
        denied=False,
        joins_names=False,
        options=lambda server: {"url": server.url},
    ),
)
