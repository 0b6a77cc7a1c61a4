"""Fetches web pages: bounded in bytes and redirects, from public hosts, as robots.txt allows."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from functools import cache
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import httpcore

from rsearch_cli import __version__
from rsearch_cli.search.robots import MOST_BYTES, may_read
from rsearch_cli.services.http import read_retry_after
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.public_network import PublicNetwork, check_url

if TYPE_CHECKING:
    import httpx

USER_AGENT = f"rsearch/{__version__}"
"""Without the contact of `services.http.user_agent`, which is not meant for any site that a search
happens to find."""

PAGE_BYTES = 2 * 2**20
"""Bytes of a page that are read; the rest of a longer one is left out."""

MOST_REDIRECTS = 5

LONGEST_RETRY_AFTER = 10.0
"""Longest wait in seconds that a page may ask for; one that asks for more is not read."""

_HTML = ("text/html", "application/xhtml+xml")
_PLAIN = "text/plain"
_REDIRECTS = (301, 302, 303, 307, 308)
_MAY_PASS = (408, 425, 429)
_SILENCE_SECONDS = 10.0
_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,
    UnicodeError,  # a host that no resolver takes
)

ReadRobots = Callable[[str], Awaitable[str]]
"""Returns the robots.txt of an origin such as `https://example.org`; raises `CallFailure`."""


class Unreadable(Exception):
    """The site's answer says that there is no text to read: asking again would not help."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was sent.

    Attributes:
        body: At most `PAGE_BYTES` of it.
        is_html: Whether it is HTML rather than plain text.
        charset: Encoding that its header names, or "".
    """

    body: bytes
    is_html: bool
    charset: str


class PageClient:
    """Requests pages, directly or through the proxy that the environment names.

    Args:
        private: Whether hosts that are not public, and unusual ports, may be asked.
        network: Makes direct connections; None takes `PublicNetwork`, or any address if private
            ones are allowed.
    """

    def __init__(
        self, *, private: bool = False, network: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        self._private = private
        self._network = network or (None if private else PublicNetwork())
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def fetch(self, url: str, read_robots: ReadRobots) -> Page:
        """Request a page.

        Args:
            url: Its address.
            read_robots: Returns the robots.txt of a site.

        Raises:
            Unreadable: There is no such page, it may not be read, or it is not text.
            TransientFailure: No answer, or not now.
            PermanentFailure: The page may not be requested.
        """
        for _ in range(MOST_REDIRECTS + 1):
            target = check_url(url, private=self._private)
            robots = await read_robots(_origin(target))
            if not may_read(robots, target.raw_path.decode("ascii")):
                raise Unreadable(f"robots.txt of {target.host} does not allow it")
            async with self._get(target) as response:
                if response.status not in _REDIRECTS:
                    return await _read_page(response)
                url = _follow(target, response)
        raise Unreadable(f"it redirects more than {MOST_REDIRECTS} times")

    async def fetch_robots(self, origin: str) -> str:
        """Request the robots.txt of a site; "" if it has none, which allows everything.

        Raises:
            TransientFailure: No answer, or a server error: nothing may be read (RFC 9309).
            PermanentFailure: It may not be requested.
        """
        url = f"{origin}/robots.txt"
        for _ in range(MOST_REDIRECTS + 1):
            target = check_url(url, private=self._private)
            async with self._get(target) as response:
                if response.status not in _REDIRECTS:
                    if not 200 <= response.status < 300:
                        return ""
                    body = await _read_bytes(response, MOST_BYTES)
                    return body.decode("utf-8-sig", "replace")
                url = _follow(target, response)
        raise PermanentFailure(f"it redirects more than {MOST_REDIRECTS} times", free=True)

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()

    @asynccontextmanager
    async def _get(self, url: httpx.URL) -> AsyncIterator[httpcore.Response]:
        """Send one request; the body is not read yet.

        Raises:
            TransientFailure: No answer, or one that may pass.
        """
        headers = [
            ("User-Agent", USER_AGENT),
            ("Accept", "text/html, application/xhtml+xml, text/plain;q=0.9"),
            ("Accept-Encoding", "identity"),
        ]
        waits = dict.fromkeys(("connect", "read", "write", "pool"), _SILENCE_SECONDS)
        asked = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        try:
            async with self._pool(url).stream(
                "GET", asked, headers=headers, extensions={"timeout": waits}
            ) as response:
                _refuse_for_now(url, response)
                yield response
        except _ERRORS as error:
            why = str(error) or type(error).__name__
            raise TransientFailure(f"no answer from {url.host} ({why})", free=True) from None

    def _pool(self, url: httpx.URL) -> httpcore.AsyncConnectionPool:
        """Return the connections for a URL: those of its proxy, or direct ones."""
        proxy = _find_proxy(url)
        if proxy not in self._pools:
            self._pools[proxy] = httpcore.AsyncConnectionPool(
                ssl_context=_trusted(),
                proxy=_open_proxy(proxy) if proxy else None,
                max_connections=None,
                max_keepalive_connections=16,
                keepalive_expiry=5.0,
                network_backend=None if proxy else self._network,
            )
        return self._pools[proxy]


@cache
def _trusted() -> ssl.SSLContext:
    """Return the authorities whose certificates are accepted; reading them takes 0.1 s."""
    import httpx

    context: ssl.SSLContext = httpx.create_ssl_context()
    return context


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _find_proxy(url: httpx.URL) -> str:
    """Return the proxy that the environment names for a URL; "" if it names none."""
    if proxy_bypass(url.host):
        return ""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def _open_proxy(proxy: str) -> httpcore.Proxy:
    import httpx

    parsed = httpx.Proxy(proxy)
    url = parsed.url
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/")
    return httpcore.Proxy(target, auth=parsed.raw_auth, headers=parsed.headers.raw)


def _header(response: httpcore.Response, name: str) -> str:
    found = [value for key, value in response.headers if key.lower() == name.encode()]
    return found[0].decode("latin-1").strip() if found else ""


def _refuse_for_now(url: httpx.URL, response: httpcore.Response) -> None:
    """Raise what a busy or broken server means."""
    status = response.status
    if status not in _MAY_PASS and status < 500:
        return
    said = f"{url.host} answered {status}"
    wait = read_retry_after({"retry-after": _header(response, "retry-after")})
    if wait is not None and wait > LONGEST_RETRY_AFTER:
        raise PermanentFailure(f"{said} and asks to wait {wait:g} s", free=True)
    raise TransientFailure(said, wait, free=True)


def _follow(url: httpx.URL, response: httpcore.Response) -> str:
    """Return where a redirect leads."""
    import httpx

    try:
        return str(url.join(_header(response, "location")))
    except (httpx.InvalidURL, ValueError):
        raise Unreadable("it redirects to what is not a URL") from None


async def _read_page(response: httpcore.Response) -> Page:
    """Read a page that was found.

    Raises:
        Unreadable: It was not, or it is not text.
    """
    if not 200 <= response.status < 300:
        raise Unreadable(f"its server answered {response.status}")
    message = Message()
    message["content-type"] = _header(response, "content-type") or _HTML[0]
    kind = message.get_content_type()
    if kind not in (*_HTML, _PLAIN):
        raise Unreadable(f"its type is {kind[:80]}; only HTML and plain text are read")
    charset = message.get_content_charset() or ""
    return Page(await _read_bytes(response, PAGE_BYTES), kind in _HTML, charset)


async def _read_bytes(response: httpcore.Response, most: int) -> bytes:
    """Read at most so many bytes of a body.

    Raises:
        Unreadable: It is compressed: a few kilobytes could unpack to gigabytes.
    """
    if _header(response, "content-encoding").lower() not in ("", "identity"):
        raise Unreadable("it is compressed, which was not asked for")
    body = bytearray()
    async for part in response.aiter_stream():
        body += part
        if len(body) >= most:
            break
    return bytes(body[:most])
