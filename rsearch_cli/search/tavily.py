"""Tavily, a paid search service: the web and news."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.json_client import JsonClient, JsonSource, read_url
from rsearch_cli.search.sources import (
    DAYS_KEPT,
    NEWS_DAYS_KEPT,
    Found,
    SearchRequest,
    opens,
    read_options,
)
from rsearch_cli.search.web_pages import Day, read_pages
from rsearch_cli.services.retry import NO_LIMITS, CallLimits
from rsearch_cli.services.validation import is_finite
from rsearch_cli.types import Passage

API_URL = "https://api.tavily.com"
KEY_VARIABLE = "TAVILY_API_KEY"
KEYS_URL = "https://app.tavily.com"

# Pay-as-you-go: https://docs.tavily.com/documentation/api-credits, stored copy read on 2026-11-27.
USD_PER_CREDIT = 0.008
CREDITS = {"ultra-fast": 1, "fast": 1, "basic": 1, "advanced": 2}

MOST_RESULTS = 20
MOST_QUERY_CHARS = 400
"""Tavily refuses longer queries."""

# https://docs.tavily.com/documentation/rate-limits, stored copy read on 2026-11-27.
DEVELOPMENT_KEY = "tvly-dev-"
DEVELOPMENT_LIMITS = CallLimits(requests_per_second=100 / 60)
"""A development key may send 100 requests a minute; a production key 1,000, which are 16.7 a second
where `search.service` allows 10 by default."""

_OUT_OF_CREDIT = (432, 433)


class TavilyOptions(BaseConfig):
    """Settings of a source of type `tavily`, under `search.sources.<name>.options`."""

    topic: Literal["general", "news", "finance"] | None = None
    """Tavily's topic; null chooses it by the source's name: `news` for News, `general` for all
    others."""
    search_depth: Literal["basic", "advanced", "fast", "ultra-fast"] = "basic"
    """How thoroughly Tavily searches; `advanced` costs two credits, the others one."""
    include_domains: list[str] = Field(default_factory=list)
    """Domains to search; empty for all."""
    exclude_domains: list[str] = Field(default_factory=list)
    """Domains to leave out."""
    time_range: Literal["day", "week", "month", "year"] | None = None
    """Only pages of the last day, week, month or year. Not together with the two dates."""
    start_date: Day | None = None
    """Only pages from this day on, 'YYYY-MM-DD' in quotes."""
    end_date: Day | None = None
    """Only pages up to this day, 'YYYY-MM-DD' in quotes."""
    max_characters: int = Field(1000, ge=40, le=20000)
    """Most characters of a page's text; it is cut at the end of a sentence."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise ValueError(f"start_date {self.start_date} is after end_date {self.end_date}")
        if self.time_range and (self.start_date or self.end_date):
            raise ValueError("time_range and the dates exclude each other; keep one")
        return self


class TavilySource(JsonSource):
    """Tavily under one source name.

    Args:
        name: The source name, which may determine the topic.
        options: The recipe's options.
        client: Client of the service.
    """

    service = "tavily"

    def __init__(self, name: str, options: TavilyOptions, client: JsonClient) -> None:
        topic = options.topic or ("news" if name == "News" else "general")
        self._options = options.model_copy(update={"topic": topic})
        super().__init__(client)
        self.limits = DEVELOPMENT_LIMITS if client.key.startswith(DEVELOPMENT_KEY) else NO_LIMITS
        self.cache_days = NEWS_DAYS_KEPT if topic == "news" else DAYS_KEPT
        self.fingerprint = f"tavily/v1/{client.url}/{self._options.model_dump_json()}"

    @classmethod
    def price(cls, name: str, search: SearchConfig) -> float:
        """Return the price of the credits that a search of this depth takes."""
        options = read_options(TavilyOptions, name, search.sources[name])
        return USD_PER_CREDIT * CREDITS[options.search_depth]

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request as one text, with as many names as Tavily accepts."""
        query = request.query[:MOST_QUERY_CHARS]
        for name in request.expansion:
            if len(query) + 1 + len(name) <= MOST_QUERY_CHARS:
                query = f"{query} {name}"
        return SearchRequest(query, top_k=request.top_k)

    async def search(self, request: SearchRequest) -> Found:
        """Search for the query and its expansion; see `JsonClient.send`."""
        options = self._options
        settings = options.model_dump(exclude={"max_characters"})
        body = {
            "query": self.simplify(request).query,
            "max_results": min(request.top_k, MOST_RESULTS),
            "include_usage": True,
            **{name: value for name, value in settings.items() if value},
        }
        headers = {"Authorization": f"Bearer {self._client.key}"}
        answer = await self._client.send("POST", "/search", body=body, headers=headers)
        try:
            pages = read_pages(
                answer["results"],
                url="url",
                title="title",
                text="content",
                most=options.max_characters,
            )
            credits = (answer.get("usage") or {}).get("credits")
        except (LookupError, TypeError, AttributeError):
            raise self._client.malformed() from None
        times = credits / CREDITS[options.search_depth] if is_finite(credits) else credits
        return Found(pages[: request.top_k], times=times)


@opens(TavilySource)
def open_tavily(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, TavilySource]:
    """Open the Tavily sources of a recipe; they share their connections.

    Args:
        configs: Settings by source name.
        corpus: Not used.
        index_dir: Not used.

    Raises:
        RecipeKeyError: An option is unknown.
        RecipeValueError: The value of an option is invalid.
        SourceError: TAVILY_BASE_URL is not an http address.
    """
    client = JsonClient(
        "Tavily",
        read_url("TAVILY_BASE_URL", API_URL),
        key_variable=KEY_VARIABLE,
        keys_url=KEYS_URL,
        denies=lambda status, words: status in _OUT_OF_CREDIT,
    )
    return {
        name: TavilySource(name, read_options(TavilyOptions, name, config), client)
        for name, config in configs.items()
    }
