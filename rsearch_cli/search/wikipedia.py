"""Wikipedia or another MediaWiki, through its Action API: introductions of pages, without a key.

The protocol: https://www.mediawiki.org/wiki/API:Search and
https://www.mediawiki.org/wiki/Extension:TextExtracts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.addresses import check_address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.analyzer import STOP_WORDS, split_query, split_words
from rsearch_cli.search.json_client import JsonClient, JsonSource
from rsearch_cli.search.sources import SearchRequest, opens, read_options
from rsearch_cli.search.web_pages import is_citable, tidy
from rsearch_cli.services.http import CONTACT_VARIABLE, read_retry_after, user_agent
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.retry import NO_LIMITS, CallLimits
from rsearch_cli.types import Passage

MOST_EXTRACTS = 20
"""Most introductions in one answer; of more pages, MediaWiki sends the rest on further requests."""

MOST_QUERY_CHARS = 300
"""Longest query that CirrusSearch, the search of Wikipedia, accepts."""

MAX_LAG_SECONDS = 5
"""Lag of the wiki's databases at which it refuses our requests; the value that Wikimedia asks for
(https://www.mediawiki.org/wiki/Manual:Maxlag_parameter)."""

WIKIMEDIA_LIMITS = CallLimits(requests_per_second=2.0, concurrency=3)
"""Limits at Wikimedia, which asks for no more than 3 requests at once
(https://www.mediawiki.org/wiki/Wikimedia_APIs/Rate_limits). A search sends its own in turn."""

_API_PATH = "/w/api.php"
_WIKIMEDIA = re.compile(
    r"(?:.+\.)?(?:wikipedia|wiktionary|wikiquote|wikisource|wikibooks|wikinews|wikiversity"
    r"|wikivoyage|wikidata|wikimedia|mediawiki)\.org"
)
_SPARE = 2
"""Pages requested beyond `top_k`, in place of disambiguation pages."""

# Every request: https://www.mediawiki.org/wiki/API:Query
_PARAMETERS: Mapping[str, Any] = {
    "action": "query",
    "format": "json",
    "formatversion": 2,
    "maxlag": MAX_LAG_SECONDS,
    "redirects": 1,
    "prop": "extracts|info|pageprops",
    "exintro": 1,
    "explaintext": 1,
    "exlimit": MOST_EXTRACTS,
    "inprop": "url",
    "ppprop": "disambiguation",
}
_MAY_PASS = frozenset(
    {
        "maxlag",
        "ratelimited",
        "readonly",
        "cirrussearch-backend-error",
        "cirrussearch-too-busy-error",
    }
)
_CONTACT = (
    f"Wikimedia wants to know whom to contact: set {CONTACT_VARIABLE} to your e-mail address or to "
    "the URL of a page about you"
)
_REMEDIES = {403: _CONTACT, 429: f"without a contact, the limits are low; {_CONTACT}"}

# Syntax of CirrusSearch: phrases, wildcards, keywords such as intitle:, fuzzy search, negation.
_OPERATORS = re.compile(r"""["!*?~:/\\()\[\]{}|<>=&^#]|(?<!\w)-""")
_CONNECTIVES = re.compile(r"\b(?:AND|OR|NOT)\b")
# Characters that no title has; a bar separates titles.
_NOT_IN_TITLES = frozenset("#<>[]|{}\n")
_MOST_TITLE_BYTES = 255

Page = Mapping[str, Any]
"""A page in an answer of the API."""


class WikipediaOptions(BaseConfig):
    """Settings of a source of type `wikipedia`, under `search.sources.<name>.options`."""

    language: str = Field("en", pattern=r"^[a-z]{2,}(-[a-z]+)*$", max_length=32)
    """Language of the Wikipedia, as in its address: `de` is de.wikipedia.org."""
    url: str | None = None
    """Address of another MediaWiki with the TextExtracts extension, instead of language; the path
    `/w/api.php` is added if there is none."""
    max_characters: int = Field(1000, ge=40, le=20000)
    """Most characters of a page's introduction; it is cut at the end of a sentence."""

    @field_validator("url")
    @classmethod
    def _name_path(cls, value: str | None) -> str | None:
        if value is None:
            return None
        has_path = urlsplit(check_address(value)).path.strip("/")
        return value if has_path else value.rstrip("/") + _API_PATH

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.url is not None and "language" in self.model_fields_set:
            raise ValueError("language and url exclude each other; the url names one wiki")
        return self

    @property
    def address(self) -> str:
        """The URL of the API."""
        return self.url or f"https://{self.language}.wikipedia.org{_API_PATH}"


class WikipediaSource(JsonSource):
    """The introductions of the pages that a wiki finds.

    A search takes one request. With names that a node's parents found, it takes one that looks
    the names up as titles, and, if these pages are too few, a second one that searches. Where a
    search for all words finds too few pages, another one looks for any of them.

    Args:
        options: The recipe's options.
    """

    service = "wikipedia"
    usd_per_search = 0.0

    def __init__(self, options: WikipediaOptions) -> None:
        self._most = options.max_characters
        at_wikimedia = _WIKIMEDIA.fullmatch(urlsplit(options.address).hostname or "")
        self.limits = WIKIMEDIA_LIMITS if at_wikimedia else NO_LIMITS
        client = JsonClient(
            "Wikipedia" if options.url is None else "the wiki",
            options.address,
            headers={"User-Agent": user_agent()},
            remedies=_REMEDIES,
            on_answer=self._refuse_errors,
        )
        super().__init__(client)
        self.fingerprint = f"wikipedia/v1/{client.url}/{self._most}"

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request without what does not matter here: names are always titles."""
        return SearchRequest(request.query, request.expansion, request.top_k)

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Return introductions, first of all those of pages that the expansion names.

        MediaWiki finds pages that contain all words of a query, so a query with many names would
        find nothing. Of the pages that the names title, those come first that have more words of
        the query. See `JsonClient.send` for what it raises.
        """
        if not request.expansion:
            return (await self._find_any(request.query, request.top_k))[: request.top_k]
        own = set(split_query(request.query))
        titled = await self._look_up(request.expansion)
        titled.sort(key=lambda p: -len(own & set(split_words(f"{p.title} {p.text}"))))
        if not titled:
            query = f"{request.query} {request.expansion[0]}"
            titled = await self._find_any(query, request.top_k)
        elif len(titled) < request.top_k:
            query = f"{request.query} {titled[0].title}"
            titled += await self._find(as_query(query), request.top_k)
        return list({passage.id: passage for passage in titled}.values())[: request.top_k]

    async def read(self, passage: Passage) -> str | None:
        """Return the text of the whole article; None if there is none any more."""
        pages, _ = await self._query(
            titles=passage.title, exintro=None, exlimit=1, exsectionformat="plain"
        )
        text = pages[0].get("extract") if pages else None
        return text if isinstance(text, str) and text else None

    async def _find_any(self, query: str, count: int) -> list[Passage]:
        """Find pages with all words of a query; too few are joined by those with any of them."""
        plain = as_query(query)
        found = await self._find(plain, count) if plain else []
        words = [word for word in plain.split() if word.casefold() not in STOP_WORDS]
        if len(found) >= count or len(words) < 2:
            return found
        while len(joined := " OR ".join(words)) > MOST_QUERY_CHARS:
            words.pop()
        found += await self._find(joined, count)
        return list({passage.id: passage for passage in found}.values())

    async def _find(self, query: str, count: int) -> list[Passage]:
        """Search the text of all pages, best first."""
        pages, _ = await self._query(
            generator="search",
            gsrsearch=query,
            gsrnamespace=0,
            gsrlimit=count + _SPARE,
        )
        try:
            pages.sort(key=lambda page: page["index"])
        except (LookupError, TypeError):
            raise self._client.malformed() from None
        return self._read(pages)

    async def _look_up(self, names: Sequence[str]) -> list[Passage]:
        """Return the pages titled by names, redirects followed, in the order of the names."""
        titles = [name for name in names if _may_be_title(name)][:MOST_EXTRACTS]
        if not titles:
            return []
        pages, leads_to = await self._query(titles="|".join(titles))
        passages = {passage.title: passage for passage in self._read(pages)}
        found = dict.fromkeys(_follow(leads_to, title) for title in titles)
        return [passages[title] for title in found if title in passages]

    async def _query(self, **parameters: Any) -> tuple[list[Page], dict[str, str]]:
        """Send a query, and the requests that continue it.

        Args:
            parameters: Beside `_PARAMETERS`; None leaves one of those out.

        Returns:
            The pages, and where titles lead by normalisation or redirect.
        """
        merged = {**_PARAMETERS, **parameters}
        asked = {name: value for name, value in merged.items() if value is not None}
        pages: dict[object, dict[str, Any]] = {}
        leads_to: dict[str, str] = {}
        while True:
            answer = await self._client.send("GET", params=asked)
            try:
                more = _merge(answer, pages, leads_to)
            except (LookupError, TypeError, AttributeError):
                raise self._client.malformed() from None
            if not more:
                return list(pages.values()), leads_to
            if more["excontinue"] == asked.get("excontinue"):
                raise self._client.malformed()
            asked |= more

    def _read(self, pages: Iterable[Page]) -> list[Passage]:
        """Convert pages to passages, without those that say nothing."""
        articles = [page for page in pages if _is_article(page)]
        if articles and not any("extract" in page for page in articles):
            raise PermanentFailure(
                f"{self._client.url} sends no introductions; type: wikipedia needs a wiki with the "
                "TextExtracts extension",
                free=True,
            )
        passages = []
        for page in articles:
            url, title, text = page.get("fullurl"), page.get("title"), page.get("extract") or ""
            if not (isinstance(url, str) and isinstance(title, str) and isinstance(text, str)):
                raise self._client.malformed()
            if is_citable(url):
                passages.append(tidy(Passage(url, title, text), self._most))
        return passages

    def _refuse_errors(self, answer: Any, headers: Mapping[str, str]) -> None:
        """Raise the failure for an error that comes with a good status, as the API's errors do."""
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict):
            return
        code, info = str(error.get("code")), shorten(flatten(str(error.get("info"))), 200)
        said = f"{self._client.url} answered {code} ({info})"
        if code in _MAY_PASS or code.startswith("internal_api_error"):
            raise TransientFailure(said, read_retry_after(headers), free=True)
        raise PermanentFailure(said, free=True)


@opens(WikipediaSource)
def open_wikipedia(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, WikipediaSource]:
    """Open the sources of type `wikipedia` of a recipe; corpus and index_dir are not used.

    Raises:
        RecipeKeyError: An option is unknown.
        RecipeValueError: The value of an option is invalid.
        SourceError: RSEARCH_CONTACT cannot be sent.
    """
    return {
        name: WikipediaSource(read_options(WikipediaOptions, name, config))
        for name, config in configs.items()
    }


def as_query(text: str) -> str:
    """Return text as plain words for CirrusSearch, without its operators and within its limit."""
    plain = _CONNECTIVES.sub(lambda word: word[0].lower(), _OPERATORS.sub(" ", text))
    words = " ".join(plain.split())
    if len(words) <= MOST_QUERY_CHARS:
        return words
    return words[: MOST_QUERY_CHARS + 1].rpartition(" ")[0] or words[:MOST_QUERY_CHARS]


def _merge(
    answer: Any, pages: dict[object, dict[str, Any]], leads_to: dict[str, str]
) -> Mapping[str, Any]:
    """Add the pages of an answer to those before, and return the parameters that continue it.

    Raises:
        LookupError, TypeError, AttributeError: It is not an answer to a query.
    """
    found = answer.get("query", {})
    if not found and "batchcomplete" not in answer:
        raise KeyError("query")
    for page in found.get("pages", ()):
        pages.setdefault(page.get("pageid", page["title"]), {}).update(page)
    for step in (*found.get("normalized", ()), *found.get("redirects", ())):
        leads_to[step["from"]] = step["to"]
    more: Mapping[str, Any] = answer.get("continue", {})
    # Without extracts to come, what continues is the list of pages, which is long enough.
    return more if "excontinue" in more else {}


def _may_be_title(name: str) -> bool:
    return _NOT_IN_TITLES.isdisjoint(name) and len(name.encode()) <= _MOST_TITLE_BYTES


def _follow(leads_to: Mapping[str, str], name: str) -> str:
    """Return the title where a name leads."""
    seen = set()
    while name in leads_to and name not in seen:
        seen.add(name)
        name = leads_to[name]
    return name


def _is_article(page: Page) -> bool:
    """Whether a page exists, is in the main name space, and is about one subject."""
    absent = page.get("missing") or page.get("invalid") or page.get("ns") != 0
    return not absent and "disambiguation" not in (page.get("pageprops") or {})
