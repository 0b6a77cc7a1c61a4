"""A SearXNG instance, which asks many search engines at once and needs no key.

The protocol: https://docs.searxng.org/dev/search_api.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.addresses import Address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.json_client import JsonClient, JsonSource
from rsearch_cli.search.sources import (
    DAYS_KEPT,
    NEWS_DAYS_KEPT,
    SearchRequest,
    opens,
    read_options,
)
from rsearch_cli.search.web_pages import read_pages
from rsearch_cli.services.outcomes import TransientFailure
from rsearch_cli.types import Passage

CATEGORIES: Mapping[str, str] = {"News": "news", "Academy": "science"}
"""SearXNG's category by source name; all other names take the instance's own."""

_REMEDIES = {
    403: "the instance does not allow JSON; add `json` to `search.formats` in its settings.yml and "
    "restart it"
}


class SearxngOptions(BaseConfig):
    """Settings of a source of type `searxng`, under `search.sources.<name>.options`."""

    url: Address = "http://127.0.0.1:8080"
    """Address of the instance."""
    engines: list[str] = Field(default_factory=list)
    """Engines of the instance to ask; empty for those of the categories."""
    categories: list[str] | None = None
    """Categories to search; null chooses them by the source's name: `news` for News, `science` for
    Academy, those of the instance for all others."""
    language: str | None = Field(None, pattern=r"^(all|auto|[a-z]{2,3}(-[A-Za-z]{2,4})?)$")
    """Language code such as `en` or `de-AT`; null takes the instance's."""
    time_range: Literal["day", "week", "month", "year"] | None = None
    """Only pages of the last day, week, month or year, with engines that know it."""
    safesearch: Literal[0, 1, 2] | None = None
    """0 filters nothing, 1 moderately, 2 strictly; null takes the instance's."""
    max_characters: int = Field(1000, ge=40, le=20000)
    """Most characters of a text; it is cut at the end of a sentence."""


class SearxngSource(JsonSource):
    """The pages that the engines of an instance find, with their snippets.

    Args:
        name: The source name, which may determine the category.
        options: The recipe's options.
    """

    service = "searxng"
    usd_per_search = 0.0

    def __init__(self, name: str, options: SearxngOptions) -> None:
        categories = options.categories
        if categories is None:
            # Engines that are named replace the categories.
            categories = [CATEGORIES[name]] if name in CATEGORIES and not options.engines else []
        self._most = options.max_characters
        fixed = {
            "engines": ",".join(options.engines),
            "categories": ",".join(categories),
            "language": options.language,
            "time_range": options.time_range,
            "safesearch": options.safesearch,
        }
        self._fixed = {key: value for key, value in fixed.items() if value not in (None, "")}
        super().__init__(JsonClient("SearXNG", options.url, remedies=_REMEDIES))
        self.cache_days = NEWS_DAYS_KEPT if "news" in categories else DAYS_KEPT
        asked = "&".join(f"{key}={value}" for key, value in self._fixed.items())
        self.fingerprint = f"searxng/v1/{self._client.url}/{asked}/{self._most}"

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request as one text, which is all that the protocol carries."""
        return request.as_one_text()

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Send one query; see `JsonClient.send`.

        Raises:
            TransientFailure: Nothing was found, and some engines did not answer.
        """
        asked = {"q": self.simplify(request).query, "format": "json", **self._fixed}
        answer = await self._client.send("GET", "/search", params=asked)
        try:
            rows, silent = answer["results"], answer.get("unresponsive_engines") or []
            pages = read_pages(rows, url="url", title="title", text="content", most=self._most)
            reasons = ", ".join(": ".join(map(str, engine)) for engine in silent)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self._client.malformed() from None
        if not rows and silent:
            raise TransientFailure(
                f"SearXNG at {self._client.url} found nothing, and engines did not answer "
                f"({shorten(flatten(reasons), 200)})",
                free=True,
            )
        return pages[: request.top_k]


@opens(SearxngSource)
def open_searxng(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, SearxngSource]:
    """Open the sources of type `searxng` of a recipe; corpus and index_dir are not used.

    Raises:
        RecipeKeyError: An option is unknown.
        RecipeValueError: The value of an option is invalid.
    """
    return {
        name: SearxngSource(name, read_options(SearxngOptions, name, config))
        for name, config in configs.items()
    }
