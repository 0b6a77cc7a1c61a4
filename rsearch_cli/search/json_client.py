"""Client of a search service that answers with JSON; every error becomes a failure of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from rsearch_cli.errors import AccessDenied, SourceError
from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.addresses import hide_login, is_http
from rsearch_cli.search.sources import SearchSource
from rsearch_cli.services.http import check_proxies, open_client, read_retry_after
from rsearch_cli.services.keys import check_key, hide_secrets, read_key
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure

if TYPE_CHECKING:
    import httpx

_MESSAGE_CHARS = 200
_REFUSALS = (401, 402, 403)
_MAY_PASS = (408, 425, 429)


class JsonClient:
    """Sends one request at a time and reads its JSON answer.

    Args:
        service: Name of the service, for messages.
        url: Its address, which may contain a path.
        key_variable: Environment variable of its key; "" if it needs none.
        keys_url: Where to get a key, for messages.
        headers: Sent with every request.
        timeout: Longest silence of the service, in seconds; None leaves it to the retry policy.
        remedies: What to do about an HTTP status; appended to the message of its failure.
        denies: Whether an HTTP status with this message refuses the key or the account; 401, 402
            and 403 always do, if there is a key.
        on_answer: Called with the JSON and the headers of every answer with a good status; raises
            the failure that the JSON stands for, if it does.

    Attributes:
        url: The address, without credentials.
    """

    def __init__(
        self,
        service: str,
        url: str,
        *,
        key_variable: str = "",
        keys_url: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        remedies: Mapping[int, str] | None = None,
        denies: Callable[[int, str], bool] | None = None,
        on_answer: Callable[[Any, Mapping[str, str]], None] | None = None,
    ) -> None:
        self.url = hide_login(url.rstrip("/"))
        self._service = service
        self._full_url = url.rstrip("/")
        self._key_variable = key_variable
        self._keys_url = keys_url
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._remedies = dict(remedies or {})
        self._denies = denies
        self._on_answer = on_answer
        self._client: httpx.AsyncClient | None = None

    @property
    def key(self) -> str:
        """The key in the environment; "" if there is none."""
        return read_key(self._key_variable) if self._key_variable else ""

    def check(self) -> None:
        """Check the key and the proxies.

        Raises:
            AccessDenied: The key is missing, or is a text that cannot be a key.
            SourceError: The proxy settings of the environment cannot be used.
        """
        check_proxies()
        if not self._key_variable:
            return
        if not self.key:
            raise AccessDenied(
                f"{self._service} needs a key and {self._key_variable} is not set; get one at "
                f"{self._keys_url}"
            )
        check_key(self._key_variable, self.key)

    async def send(
        self,
        method: Literal["GET", "POST"],
        path: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request and return its JSON.

        Args:
            method: HTTP method.
            path: Appended to the address.
            params: Query parameters.
            body: Sent as JSON, if given.
            headers: Sent besides those of the client, such as the one with the key.

        Raises:
            TransientFailure: The service is busy, late or broken, or its answer is not JSON.
            PermanentFailure: It refuses this request.
            AccessDenied: It refuses the key or the account.
        """
        import httpx

        if self._client is None:
            self._client = open_client(headers=self._headers, timeout=self._timeout)
        try:
            response = await self._client.request(
                method, self._full_url + path, params=params, json=body, headers=headers
            )
            answer = response.json() if response.is_success else None
        except httpx.HTTPError as error:
            words = self._quote(str(error) or type(error).__name__)
            free = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            failure = TransientFailure(
                f"no answer from {self._service} at {self.url} ({words})", free=free
            )
        except (ValueError, RecursionError):
            failure = self.malformed()
        else:
            if not response.is_success:
                self._refuse(response)
            if self._on_answer is not None:
                self._on_answer(answer, response.headers)
            return answer
        # Not raised above: the chained error would keep the whole answer in memory.
        raise failure

    def malformed(self) -> TransientFailure:
        """Return the failure for an answer that is not one of this service."""
        return TransientFailure(f"{self._service} at {self.url} sent no search results")

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _refuse(self, response: httpx.Response) -> None:
        """Raise the failure that an HTTP status stands for."""
        status = response.status_code
        words = self._quote(_read_error(response) or response.reason_phrase or "no reason given")
        said = f"{self._service} at {self.url} answered {status} ({words})"
        if status in self._remedies:
            said += f"; {self._remedies[status]}"
        denied = status in _REFUSALS or (self._denies is not None and self._denies(status, words))
        if denied and self._key_variable:
            raise AccessDenied(f"{said}; check {self._key_variable}, see {self._keys_url}")
        if status in _MAY_PASS or status >= 500:
            raise TransientFailure(said, read_retry_after(response.headers), free=status < 500)
        raise PermanentFailure(said, free=True)

    def _quote(self, words: str) -> str:
        return shorten(hide_secrets(flatten(words)), _MESSAGE_CHARS)


def read_url(variable: str, default: str) -> str:
    """Return the address of a service: the one in an environment variable, else the default.

    Raises:
        SourceError: It is not an http address.
    """
    url = os.environ.get(variable) or default
    if not is_http(url):
        raise SourceError(
            f"{variable} is not an http address, got {hide_login(url)!r}; unset it to use {default}"
        )
    return url


def _read_error(response: httpx.Response) -> str | None:
    """Return the message in an error's JSON, wherever the service puts it."""
    try:
        found = response.json()
        for name in ("error", "detail", "message"):
            if found.get(name):
                inner = found[name]
                if isinstance(inner, dict):
                    inner = inner.get("message") or inner.get("error") or inner
                return str(inner)
    except (ValueError, AttributeError, RecursionError):
        pass
    return None


class JsonSource(SearchSource):
    """A source that asks its service through a `JsonClient`.

    Args:
        client: Client of the service; sources that are opened together may share it.
    """

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def check(self) -> None:
        """Check the proxies, and the key if there is one; see `JsonClient.check`."""
        self._client.check()

    async def close(self) -> None:
        """Close the connections, those of sources with the same client included."""
        await self._client.close()
