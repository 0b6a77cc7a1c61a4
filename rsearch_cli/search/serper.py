"""Serper, a paid search service: Google's results for the web, news and research papers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

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
from rsearch_cli.search.web_pages import read_pages
from rsearch_cli.services.validation import is_finite
from rsearch_cli.types import Passage

API_URL = "https://google.serper.dev"
KEY_VARIABLE = "SERPER_API_KEY"
KEYS_URL = "https://serper.dev/api-keys"

# The smallest package; https://serper.dev as another page quoted it on 2026-08-13.
USD_PER_CREDIT = 0.001

RESULTS_INCLUDED = 10
"""Results on Google's first page; a request for more of them takes two credits."""

SNIPPET_CHARS = 1000
"""Most characters of a snippet; Google's are shorter."""

Endpoint = Literal["search", "news", "scholar"]

ENDPOINTS: Mapping[str, Endpoint] = {"News": "news", "Academy": "scholar"}
"""Serper's endpoint by source name; all other names search the whole web."""

PERIODS = {"hour": "qdr:h", "day": "qdr:d", "week": "qdr:w", "month": "qdr:m", "year": "qdr:y"}
"""Google's `tbs` filter by the option `time_range`."""


class SerperOptions(BaseConfig):
    """Settings of a source of type `serper`, under `search.sources.<name>.options`."""

    endpoint: Endpoint | None = None
    """What Google searches; null chooses it by the source's name: `news` for News, `scholar` for
    Academy, `search` for all others."""
    gl: str | None = Field(None, pattern="^[a-z]{2}$")
    """Country of the results, such as `de`; null is Serper's default, `us`."""
    hl: str | None = Field(None, pattern="^[a-z]{2}(-[a-zA-Z]{2,4})?$")
    """Language of the results, such as `de`; null is Serper's default, `en`."""
    time_range: Literal["hour", "day", "week", "month", "year"] | None = None
    """Only pages of the last hour, day, week, month or year."""


class SerperSource(JsonSource):
    """Serper under one source name. Its texts are Google's snippets, of about 160 characters.

    Args:
        name: The source name, which may determine the endpoint.
        options: The recipe's options.
        client: Client of the service.
    """

    service = "serper"

    def __init__(self, name: str, options: SerperOptions, client: JsonClient) -> None:
        self._endpoint = options.endpoint or ENDPOINTS.get(name, "search")
        self._options = options.model_copy(update={"endpoint": self._endpoint})
        super().__init__(client)
        self.cache_days = NEWS_DAYS_KEPT if self._endpoint == "news" else DAYS_KEPT
        self.fingerprint = f"serper/v1/{client.url}/{self._options.model_dump_json()}"

    @classmethod
    def price(cls, name: str, search: SearchConfig) -> float:
        """Return the price of the credits that a search for so many results takes."""
        read_options(SerperOptions, name, search.sources[name])
        return USD_PER_CREDIT * _count_credits(search.top_k)

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request as one text: Google does not weigh the expansion separately."""
        return request.as_one_text()

    async def search(self, request: SearchRequest) -> Found:
        """Search for the query and its expansion; see `JsonClient.send`."""
        headers = {"X-API-KEY": self._client.key}
        answer = await self._client.send(
            "POST", f"/{self._endpoint}", body=self._write_body(request), headers=headers
        )
        try:
            rows = answer["news" if self._endpoint == "news" else "organic"]
            if self._endpoint == "scholar":
                rows = [_add_publication(row) for row in rows]
            pages = read_pages(rows, url="link", title="title", text="snippet", most=SNIPPET_CHARS)
            credits = answer.get("credits")
        except (LookupError, TypeError, AttributeError):
            raise self._client.malformed() from None
        times = credits / _count_credits(request.top_k) if is_finite(credits) else credits
        return Found(pages[: request.top_k], times=times)

    def _write_body(self, request: SearchRequest) -> dict[str, Any]:
        options = self._options
        body: dict[str, Any] = {"q": self.simplify(request).query}
        # The first page is the default, and Google Scholar has no other size.
        if request.top_k > RESULTS_INCLUDED and self._endpoint != "scholar":
            body["num"] = request.top_k
        if options.time_range is not None:
            body["tbs"] = PERIODS[options.time_range]
        return body | options.model_dump(include={"gl", "hl"}, exclude_none=True)


def _add_publication(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of Google Scholar with authors, journal and year after its snippet."""
    parts = (row.get("snippet"), row.get("publicationInfo"))
    return {**row, "snippet": " ".join(part for part in parts if part is not None)}


def _count_credits(top_k: int) -> int:
    """Return the credits that a request for so many results takes."""
    return 1 if top_k <= RESULTS_INCLUDED else 2


@opens(SerperSource)
def open_serper(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, SerperSource]:
    """Open the Serper sources of a recipe; they share their connections.

    Args:
        configs: Settings by source name.
        corpus: Not used.
        index_dir: Not used.

    Raises:
        RecipeKeyError: An option is unknown.
        RecipeValueError: The value of an option is invalid.
        SourceError: SERPER_BASE_URL is not an http address.
    """
    client = JsonClient(
        "Serper",
        read_url("SERPER_BASE_URL", API_URL),
        key_variable=KEY_VARIABLE,
        keys_url=KEYS_URL,
        # An empty account is told by 400 "Not enough credits".
        denies=lambda status, words: status == 400 and "credits" in words.lower(),
    )
    return {
        name: SerperSource(name, read_options(SerperOptions, name, config), client)
        for name, config in configs.items()
    }
