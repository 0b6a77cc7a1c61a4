"""Reads the pages behind the best hits of a search whose text is too short: `search.read_top`.

A page that cannot be read leaves its hit as it was, and does not make the search fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

import httpcore

from rsearch_cli.errors import OfflineMiss, ServiceFailure, SourceError
from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.schema import SearchConfig
from rsearch_cli.search.cache_entries import encode_text, read_robots, read_text
from rsearch_cli.search.page_client import PageClient, Unreadable
from rsearch_cli.search.page_text import TextExtractor, choose_excerpt
from rsearch_cli.search.sources import SearchRequest, SearchSource
from rsearch_cli.services.cache import make_key
from rsearch_cli.services.event_loop import finish_all
from rsearch_cli.services.outcomes import PermanentFailure, Reply
from rsearch_cli.services.public_network import check_url
from rsearch_cli.services.runtime import READ, ROBOTS, Services
from rsearch_cli.services.validation import mend
from rsearch_cli.types import Passage

VERSION = "v1"
"""Increase it when the text of a page is extracted in another way."""

PER_HOST = 2
"""Most pages of one host that are requested at the same time."""

ROBOTS_SECONDS = 86400.0
"""How long a robots.txt is valid (RFC 9309, section 2.4)."""

_REASON_CHARS = 200
_URL_CHARS = 120


class PageReader:
    """Reads pages through the services of a run, so that each is requested once.

    Args:
        search: The recipe's section.
        services: The services of the run.
        network: See `PageClient`.
    """

    def __init__(
        self,
        search: SearchConfig,
        services: Services,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._search = search
        self._services = services
        self._pages = PageClient(private=search.read_private_addresses, network=network)
        self._extractor = TextExtractor()
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def read(
        self,
        source: SearchSource,
        request: SearchRequest,
        passages: Sequence[Passage],
        seconds_kept: float | None,
    ) -> tuple[tuple[Passage, ...], tuple[str, ...]]:
        """Give the best hits that are too short a text that matches the request.

        Args:
            source: Where they were found.
            request: What was searched for.
            passages: The hits, best first.
            seconds_kept: How long the text of a page stays valid; None is forever.

        Returns:
            The hits, and one line for every page that could not be read.
        """
        if not source.service:  # a corpus is read as it is
            return tuple(passages), ()
        best = passages[: self._search.read_top]
        read = await finish_all(
            self._improve(source, request, passage, seconds_kept) for passage in best
        )
        hits = (*(passage for passage, _ in read), *passages[len(best) :])
        return hits, tuple(problem for _, problem in read if problem)

    async def close(self) -> None:
        """Close connections, and end the process that extracts texts."""
        await self._pages.close()
        await self._extractor.close()

    async def _improve(
        self,
        source: SearchSource,
        request: SearchRequest,
        passage: Passage,
        seconds_kept: float | None,
    ) -> tuple[Passage, str | None]:
        """Return a hit with more text, if it needs and gets it, and why it does not get it."""
        most = self._search.passage_chars
        snippet = flatten(passage.text)
        is_page = passage.id.lower().startswith(("http://", "https://"))
        if len(snippet) >= most or not is_page:
            return passage, None
        try:
            text = await self._ask_source(source, passage, seconds_kept)
            if text is None:
                text = await self._read_page(passage.id, seconds_kept)
        except (SourceError, OfflineMiss, Unreadable) as error:
            place = shorten(flatten(hide_login(passage.id)), _URL_CHARS)
            why = shorten(flatten(str(error)), _REASON_CHARS)
            return passage, why if why.startswith(place) else f"{place}: {why}"
        # In a thread: the event loop sends and receives other searches meanwhile.
        excerpt = await asyncio.to_thread(
            choose_excerpt, text, request.query, request.expansion, most
        )
        return (replace(passage, text=excerpt) if len(excerpt) > len(snippet) else passage), None

    async def _ask_source(
        self, source: SearchSource, passage: Passage, seconds_kept: float | None
    ) -> str | None:
        """Return the text that the source itself has of a hit; None if it has none."""
        if type(source).read is SearchSource.read:
            return None

        async def call() -> Reply:
            return Reply(encode_text(await source.read(passage)))

        key = make_key(
            source.fingerprint.partition("/")[0], fingerprint=source.fingerprint, page=passage.id
        )
        client = self._services.client(source.service, source.limits)
        answer = await client.fetch(key, call, ttl_seconds=seconds_kept, read=read_text)
        return answer.value[0]

    async def _read_page(self, address: str, seconds_kept: float | None) -> str:
        """Return the text of a page, from the cache or from its site.

        Raises:
            Unreadable: It has none, now or when it was requested.
            ServiceFailure: No answer.
            OfflineMiss: It is not in the cache, and nothing may be sent.
        """
        try:
            url = check_url(address, private=self._search.read_private_addresses)
        except PermanentFailure as failure:
            raise Unreadable(str(failure)) from None

        async def call() -> Reply:
            try:
                page = await self._pages.fetch(str(url), self._read_robots)
                return Reply(encode_text(await self._extractor.extract(page)))
            except Unreadable as problem:
                return Reply(encode_text(None, str(problem)))

        key = make_key(READ, page=str(url), form=VERSION)
        turn = self._turns.setdefault(url.host, asyncio.Semaphore(PER_HOST))
        async with turn:
            client = self._services.client(READ)
            answer = await client.fetch(key, call, ttl_seconds=seconds_kept, read=read_text)
        text, problem = answer.value
        if text is None:
            raise Unreadable(problem)
        return text

    async def _read_robots(self, origin: str) -> str:
        async def call() -> Reply:
            try:
                return Reply(mend(await self._pages.fetch_robots(origin)))
            except Unreadable as problem:
                raise PermanentFailure(str(problem), free=True) from None

        try:
            answer = await self._services.client(ROBOTS).fetch(
                make_key(ROBOTS, origin=origin), call, ttl_seconds=ROBOTS_SECONDS, read=read_robots
            )
        except ServiceFailure as failure:
            raise PermanentFailure(
                f"without its robots.txt no page of {origin} may be read ({failure})", free=True
            ) from None
        return str(answer.value)
