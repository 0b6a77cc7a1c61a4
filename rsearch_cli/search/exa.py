"""Exa, a paid search service: the web, news and research papers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.exa_client import API_URL, KEY_VARIABLE, ExaClient
from rsearch_cli.search.json_client import read_url
from rsearch_cli.search.sources import (
    DAYS_KEPT,
    NEWS_DAYS_KEPT,
    Found,
    SearchRequest,
    SearchSource,
    opens,
    read_options,
)
from rsearch_cli.search.web_pages import Day, tidy
from rsearch_cli.services.keys import read_key
from rsearch_cli.types import Passage

VERSION = "v2"
"""Increase it when requests, or the conversion of pages into passages, change."""

# Exa accepts any text as a category or type and ignores unknown ones, so an outdated name would go
# unnoticed. Both lists are those of exa-py 2.28; a test compares them.
Category = Literal["company", "news", "publication", "personal site", "financial report", "people"]
SearchType = Literal[
    "auto", "fast", "deep-lite", "deep", "deep-reasoning", "neural", "instant", "lite"
]

CATEGORIES: Mapping[str, Category] = {"News": "news", "Academy": "publication"}
"""Exa's category by source name; all other names search the whole web."""

# Read on 2026-11-26 at https://exa.ai/docs/admin/pricing; in force since 2026-03-03.
USD_PER_SEARCH = 0.007
"""Price of a search for up to `PAGES_INCLUDED` pages with their text."""
USD_BY_TYPE: Mapping[SearchType | None, float] = {
    "lite": 0.004,
    "deep-lite": 0.012,
    "deep": 0.012,
    "deep-reasoning": 0.015,
}
"""Prices of the search types that differ. No page names that of `deep-lite`: taken as `deep`'s."""
PAGES_INCLUDED = 10
USD_PER_FURTHER_PAGE = 0.001


class ExaOptions(BaseConfig):
    """Settings of a source of type `exa`, under `search.sources.<name>.options`."""

    category: Category | None = None
    """Exa's category; null chooses it by the source's name: `news` for News, `publication` for
    Academy, the whole web for all others."""
    type: SearchType | None = None
    """Exa's search type; null is Exa's default, `auto`. `lite` costs less and the `deep` types cost
    more."""
    include_domains: list[str] = Field(default_factory=list)
    """Domains to search; empty for all. Not together with exclude_domains."""
    exclude_domains: list[str] = Field(default_factory=list)
    """Domains to leave out. Not together with include_domains."""
    start_published_date: Day | None = None
    """Only pages published after this date, 'YYYY-MM-DD' in quotes."""
    end_published_date: Day | None = None
    """Only pages published before this date, 'YYYY-MM-DD' in quotes."""
    max_characters: int = Field(1000, ge=40, le=20000)
    """Most characters of a page's text; it is cut at the end of a sentence."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        first, last = self.start_published_date, self.end_published_date
        if first and last and first >= last:
            raise ValueError(
                f"start_published_date {first} is not before end_published_date {last}"
            )
        if self.include_domains and self.exclude_domains:
            raise ValueError("include_domains and exclude_domains exclude each other; keep one")
        return self


class ExaSource(SearchSource):
    """Exa under one source name.

    Args:
        name: The source name, which may determine the category.
        options: The recipe's options.
        exa: Client of the service.
    """

    service = "exa"

    def __init__(self, name: str, options: ExaOptions, exa: ExaClient) -> None:
        category = options.category or CATEGORIES.get(name)
        options = options.model_copy(update={"category": category})
        fields: dict[str, Any] = {
            "type": options.type,
            "category": category,
            "includeDomains": options.include_domains,
            "excludeDomains": options.exclude_domains,
            "startPublishedDate": options.start_published_date,
            "endPublishedDate": options.end_published_date,
            "contents": {"text": {"maxCharacters": options.max_characters}},
        }
        self._fields = {name: value for name, value in fields.items() if value}
        self._most = options.max_characters
        self._exa = exa
        self.cache_days = NEWS_DAYS_KEPT if category == "news" else DAYS_KEPT
        self.fingerprint = f"exa/{VERSION}/{exa.url}/{options.model_dump_json()}"

    @classmethod
    def price(cls, name: str, search: SearchConfig) -> float:
        """Return Exa's price for the type of search and the number of pages."""
        options = read_options(ExaOptions, name, search.sources[name])
        usd = USD_BY_TYPE.get(options.type, USD_PER_SEARCH)
        return usd + USD_PER_FURTHER_PAGE * max(0, search.top_k - PAGES_INCLUDED)

    def check(self) -> None:
        """Check the key; see `ExaClient.check`."""
        self._exa.check()

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request as one text: Exa does not weigh the expansion separately."""
        return request.as_one_text()

    async def close(self) -> None:
        """Close the connections of all Exa sources that were opened together."""
        await self._exa.close()

    async def search(self, request: SearchRequest) -> Found:
        """Search for the query and its expansion; see `ExaClient.search`."""
        query = self.simplify(request).query
        found = await self._exa.search(query, request.top_k, **self._fields)
        passages = [tidy(page, self._most) for page in found.passages]
        return Found(passages, found.usd)


@opens(ExaSource)
def open_exa(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, ExaSource]:
    """Open the Exa sources of a recipe; they share their connections.

    Args:
        configs: Settings by source name.
        corpus: Not used.
        index_dir: Not used.

    Raises:
        RecipeKeyError: An option is unknown.
        RecipeValueError: The value of an option is invalid.
        SourceError: EXA_BASE_URL is not an http address.
    """
    options = {name: read_options(ExaOptions, name, config) for name, config in configs.items()}
    exa = ExaClient(read_key(KEY_VARIABLE), read_url("EXA_BASE_URL", API_URL))
    return {name: ExaSource(name, options[name], exa) for name in configs}
