"""Client of Exa's API: one search per call, every error as a failure of ours.

No message, log line or cache key contains the API key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rsearch_cli.compat.exa import silence_warnings, with_http_client
from rsearch_cli.errors import AccessDenied
from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.search.sources import Found
from rsearch_cli.search.web_pages import is_citable
from rsearch_cli.services.http import check_proxies, open_client, read_retry_after
from rsearch_cli.services.keys import check_key, hide_secrets
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.validation import is_finite
from rsearch_cli.types import Passage

if TYPE_CHECKING:
    import httpx
    from exa_py import AsyncExa
    from exa_py.api_warnings import ApiWarning

logger = logging.getLogger(__name__)

API_URL = "https://api.exa.ai"
KEY_VARIABLE = "EXA_API_KEY"
KEYS_URL = "https://dashboard.exa.ai/api-keys"

MESSAGE_CHARS = 200
"""Most characters of Exa's message that are quoted in one of ours."""

MOST_REMARKS = 5
"""Most different warnings of Exa about requests that are reported."""

_REFUSALS = {
    401: "the key is wrong or was withdrawn",
    402: "the account has no credit left",
    403: "the key is not allowed to do this",
}
_MAY_PASS = (408, 429)


class ExaClient:
    """Sends searches to Exa and converts every error into one of our failures.

    Every search in flight has an HTTP client of its own: httpx scans all connections of a client
    twice per request and keeps no more than 20, which with 32 searches in flight costs more than
    the searches.

    Args:
        key: May be empty if nothing will be sent.
        base_url: Address of the service.

    Attributes:
        url: Base URL, without credentials.
    """

    def __init__(self, key: str, base_url: str = API_URL) -> None:
        self._full_url = base_url.rstrip("/")
        self.url = hide_login(self._full_url)
        self._key = SecretStr(key)
        self._idle: list[AsyncExa] = []
        # Slow to create; all clients take their settings from it.
        self._first: AsyncExa | None = None
        self._reported: set[str] = set()

    def check(self) -> None:
        """Check the key and the proxies, and import the library.

        Raises:
            AccessDenied: The key is missing, or is a text that cannot be a key.
            SourceError: The proxy settings of the environment cannot be used.
        """
        check_proxies()
        # Slow to import: better now than within the time-out of the first search.
        import exa_py  # noqa: F401

        key = self._key.get_secret_value()
        if not key:
            raise AccessDenied(
                f"Exa needs a key and {KEY_VARIABLE} is not set; get one at {KEYS_URL}, or search "
                "without one, as with type: wikipedia"
            )
        check_key(KEY_VARIABLE, key)

    async def search(self, query: str, num_results: int = 10, **fields: Any) -> Found:
        """Send one search.

        Args:
            query: The query.
            num_results: Most pages wanted; further ones are ignored.
            **fields: Further fields of the request, named as in Exa's API.

        Returns:
            The pages as Exa sent them, their address as the id, without those that cannot be cited.

        Raises:
            TransientFailure: Exa is busy, late or broken, or its answer is malformed.
            PermanentFailure: It refuses this request.
            AccessDenied: It refuses the key or the account.
        """
        import httpx
        from exa_py.api import parse_api_warnings

        body = {"query": query, "numResults": num_results, **fields}
        try:
            with self._borrow() as client:
                # Its `search` renames every field of every result with regular expressions.
                answer = await client.async_request("/search", body)
            pages = [_read_page(result) for result in answer["results"][:num_results]]
            charge = (answer.get("costDollars") or {}).get("total")
            self._report(parse_api_warnings(answer.get("warnings")) or [])
            return Found([page for page in pages if is_citable(page.id)], charge)
        except httpx.HTTPError as error:
            words = self._quote(str(error) or type(error).__name__)
            never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            failure = TransientFailure(
                f"no answer from Exa at {self.url} ({words})", free=never_sent
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # exa-py does not validate answers. Its message may quote a part of the key, if the page
            # that came instead of JSON does.
            failure = TransientFailure(f"Exa at {self.url} sent no search results")
        # Not raised above: the chained error would keep the whole answer in memory.
        raise failure

    async def close(self) -> None:
        """Close all idle connections; a later search opens new ones."""
        while self._idle:
            await self._idle.pop().aclose()

    @contextmanager
    def _borrow(self) -> Iterator[AsyncExa]:
        """Take an idle client, or open one."""
        client = self._idle.pop() if self._idle else self._open()
        try:
            yield client
        finally:
            self._idle.append(client)

    def _open(self) -> AsyncExa:
        from exa_py import AsyncExa

        if self._first is None:
            self.check()
            silence_warnings()  # `_report` logs them, on one line each
            self._first = AsyncExa(self._key.get_secret_value(), self._full_url)
        # exa-py puts its headers and the whole address into every request itself.
        return with_http_client(self._first, open_client(self._check, timeout=self._first.timeout))

    async def _check(self, response: httpx.Response) -> None:
        """Raise the failure that an HTTP status stands for."""
        status = response.status_code
        if response.is_success:
            return
        await response.aread()
        own_words = _read_error(response)
        words = self._quote(own_words or response.reason_phrase or "no reason given")
        if status in _REFUSALS:
            raise AccessDenied(
                f"Exa at {self.url} refuses {KEY_VARIABLE}: {_REFUSALS[status]} "
                f"({status}: {words}); see {KEYS_URL}"
            )
        said = f"Exa at {self.url} answered {status} ({words})"
        free = own_words is not None  # otherwise a proxy answered, and Exa may have done the work
        if status in _MAY_PASS or status >= 500:
            raise TransientFailure(said, read_retry_after(response.headers), free=free)
        raise PermanentFailure(said, free=free)

    def _report(self, remarks: list[ApiWarning]) -> None:
        """Report Exa's warnings about requests, such as an option that it ignores."""
        for remark in remarks:
            kind = f"{remark.code} {remark.path}"
            if kind not in self._reported and len(self._reported) < MOST_REMARKS:
                self._reported.add(kind)
                logger.warning(f"Exa: {self._quote(f'{kind}: {remark.message}')}")

    def _quote(self, words: str) -> str:
        """Return a message of the service or the library on one short line, without the key."""
        return shorten(hide_secrets(flatten(words), [self._key.get_secret_value()]), MESSAGE_CHARS)


def _read_page(result: Any) -> Passage:
    """Convert a result of Exa's.

    Raises:
        AttributeError: It is no object.
        TypeError: A field has the wrong type, or the score is not finite.
    """
    title, text, score = (result.get(name) for name in ("title", "text", "score"))
    texts = (result.get("url"), "" if title is None else title, "" if text is None else text)
    score = 0.0 if score is None else score
    if not all(isinstance(text, str) for text in texts) or not is_finite(score):
        raise TypeError("not one of Exa's results")
    return Passage(*texts, score=float(score))


def _read_error(response: httpx.Response) -> str | None:
    """Return Exa's message in an error; None if something in front of Exa answered."""
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return None
