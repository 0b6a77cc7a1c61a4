"""The line to Exa: one search, and every failure in our own words.

Place in the path: below the Exa source, and the only module that talks to Exa; the gateway decides
when it does, how often and for how much. On failure: what may be over at the next attempt is a
`TransientFailure`, what will not be a `PermanentFailure`, a refused key or an empty account is
`AccessDenied`. No message, log line or cache key holds the key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rsearch_cli.errors import AccessDenied, SourceError
from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.addresses import hide_login, is_http
from rsearch_cli.services.call import PermanentFailure, TransientFailure
from rsearch_cli.services.http import read_retry_after
from rsearch_cli.services.proxies import check_proxies

if TYPE_CHECKING:
    import ssl

    import httpx
    from exa_py import AsyncExa

_Keeper = AsyncGenerator["_Clients"]

API_URL = "https://api.exa.ai"
KEYS_URL = "https://dashboard.exa.ai/api-keys"

MESSAGE_CHARS = 200
"""Longest part of Exa's own words in a message, in characters."""

_REFUSALS = {
    401: "the key is wrong or was withdrawn",
    402: "the account has no credit left",
    403: "the key is not allowed to do this",
}
_MAY_PASS = (408, 429)
# What a header can carry; anything else would end in an error of the client that quotes the key.
_KEY = re.compile(r"[!-~]+")


class ExaService:
    """Exa behind its key: sends searches, and puts every failure into our own classes.

    Each event loop has clients of its own, which are closed as the loop ends.

    Attributes:
        url: Base URL, without credentials.
    """

    def __init__(self, key: str, base_url: str = API_URL) -> None:
        """Take the key, which may be missing where nothing will be sent, and the address.

        Raises:
            SourceError: The address is none.
        """
        if not is_http(base_url):
            raise SourceError(
                f"EXA_BASE_URL is no http address, got {hide_login(base_url)!r}; unset it to use "
                f"{API_URL}"
            )
        self._full_url = base_url.rstrip("/")
        self.url = hide_login(self._full_url)
        self._key = SecretStr(key)
        self._clients: dict[asyncio.AbstractEventLoop, tuple[_Clients, _Keeper]] = {}

    def check(self) -> None:
        """Check the key and the proxies, and load the client.

        Raises:
            AccessDenied: The key is missing, or holds a character that no key has.
            SourceError: The proxies that the environment names cannot be used.
        """
        check_proxies()
        # Slow to import: better now than while the time-out of the first search runs.
        import exa_py  # noqa: F401

        key = self._key.get_secret_value()
        if not key:
            raise AccessDenied(
                f"Exa needs a key and EXA_API_KEY is not set; get one at {KEYS_URL}, or give the "
                "sources of type exa another type"
            )
        if not _KEY.fullmatch(key):
            raise AccessDenied(
                "EXA_API_KEY holds a blank or a character that no key has; copy it again from "
                f"{KEYS_URL}"
            )

    async def search(self, query: str, **options: Any) -> list[Any]:
        """Send one search.

        Args:
            query: The words.
            **options: Further arguments of `AsyncExa.search`.

        Returns:
            exa-py's results, best first.

        Raises:
            TransientFailure: Exa is busy, late, broken, or what it sent is no answer.
            PermanentFailure: It refuses this request.
            AccessDenied: It refuses the key or the account.
        """
        import httpx

        clients = await self._find_clients()
        try:
            with clients.borrow() as client:
                response = await client.search(query, **options)
            return [_check_page(result) for result in response.results]
        except httpx.HTTPError as error:
            words = self._quote(str(error) or type(error).__name__)
            never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            raise TransientFailure(
                f"no answer from Exa at {self.url} ({words})", free=never_sent
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError):
            # exa-py takes an answer apart without checking it first. Its own words may quote half
            # of the key, if the page that came instead of JSON does.
            raise TransientFailure(f"Exa at {self.url} sent no search results") from None

    async def _find_clients(self) -> _Clients:
        """The running loop's clients; nothing in here waits, so that two calls get the same."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self.check()
            keeper = self._keep_clients(loop)
            self._clients[loop] = (await anext(keeper), keeper)
        return self._clients[loop][0]

    async def _keep_clients(self, loop: asyncio.AbstractEventLoop) -> _Keeper:
        """Hold clients open until their loop ends: a loop first closes its open generators."""
        import httpx

        verify = httpx.create_ssl_context()  # slow to make; one serves them all
        clients = _Clients(lambda: self._make_client(verify))
        try:
            yield clients
        finally:
            del self._clients[loop]
            await clients.close()

    def _make_client(self, verify: ssl.SSLContext) -> AsyncExa:
        import httpx
        from exa_py import AsyncExa

        client = AsyncExa(self._key.get_secret_value(), self._full_url)
        client._client = httpx.AsyncClient(
            base_url=client.base_url,
            headers=client.headers,
            timeout=client.timeout,
            verify=verify,
            # exa-py puts a status into the text of a ValueError and drops the headers.
            event_hooks={"response": [self._check]},
        )
        return client

    async def _check(self, response: httpx.Response) -> None:
        """Raise what an HTTP status means for this request and for the run."""
        status = response.status_code
        if response.is_success:
            return
        await response.aread()
        own_words = _read_error(response)
        words = self._quote(own_words or response.reason_phrase or "no reason given")
        if status in _REFUSALS:
            raise AccessDenied(
                f"Exa at {self.url} refuses EXA_API_KEY: {_REFUSALS[status]} ({status}: {words}); "
                f"see {KEYS_URL}"
            )
        said = f"Exa at {self.url} answered {status} ({words})"
        free = own_words is not None  # else a proxy spoke, and Exa may have done the work
        if status in _MAY_PASS or status >= 500:
            raise TransientFailure(said, read_retry_after(response.headers), free=free)
        raise PermanentFailure(said, free=free)

    def _quote(self, words: str) -> str:
        """Words of the service's or the library's on one short line, in which no key stands."""
        hidden = flatten(words).replace(self._key.get_secret_value(), "***")
        return shorten(hidden, MESSAGE_CHARS)


class _Clients:
    """The clients of one event loop, each for one search at a time.

    httpx looks through all connections of a client, twice for every request, and keeps no more than
    20 of them: with 32 searches at once that costs more than the searches.
    """

    def __init__(self, make: Callable[[], AsyncExa]) -> None:
        self._make = make
        self._all: list[AsyncExa] = []
        self._idle: list[AsyncExa] = []

    @contextmanager
    def borrow(self) -> Iterator[AsyncExa]:
        """Take a client that nobody uses, a new one if need be."""
        if not self._idle:
            self._idle.append(self._make())
            self._all.append(self._idle[-1])
        client = self._idle.pop()
        try:
            yield client
        finally:
            self._idle.append(client)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._all:
            await client.aclose()


def _check_page(result: Any) -> Any:
    """Let a result pass if it is one: exa-py does not look at the types.

    Raises:
        TypeError: A field is of another type than Exa's.
    """
    optional = ((result.title, str), (result.text, str), (result.score, float | int))
    if not isinstance(result.url, str) or not all(
        value is None or isinstance(value, kind) for value, kind in optional
    ):
        raise TypeError("not one of Exa's results")
    return result


def _read_error(response: httpx.Response) -> str | None:
    """Exa's own words in an error; None for a page that something in front of it sent."""
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return None
