"""HTTP clients with bounded answers, their User-Agent, the retry-after header, proxy settings."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.request import getproxies

from rsearch_cli.errors import SourceError
from rsearch_cli.recipe.addresses import hide_login

if TYPE_CHECKING:
    import ssl

    import httpx

ANSWER_BYTES = 8 * 2**20
"""Most bytes of one answer; the largest valid one, 50 pages of 20,000 characters, is under 4 MB."""

STREAM_BYTES = 64 * 2**20
"""Most bytes of a stream of events, which wraps every token of a reply in hundreds of bytes."""

CONTACT_VARIABLE = "RSEARCH_CONTACT"
"""Environment variable with an e-mail address or a URL under which the user can be reached."""

_PLAIN = {"Accept-Encoding": "identity"}


def user_agent() -> str:
    """Return the User-Agent of requests to sites that ask clients to identify themselves.

    Its form is that of Wikimedia's policy, with the contact in `CONTACT_VARIABLE`.

    Raises:
        SourceError: The contact cannot be part of a header.
    """
    import httpx

    from rsearch_cli import __version__

    contact = os.environ.get(CONTACT_VARIABLE, "").strip()
    if not (contact.isascii() and contact.isprintable()) or set(contact) & set("()"):
        raise SourceError(
            f"{CONTACT_VARIABLE} must be an e-mail address or a URL of plain ASCII without "
            f"brackets, got {contact!r}"
        )
    return f"rsearch/{__version__} ({contact or 'no contact given'}) httpx/{httpx.__version__}"


def open_client(
    on_response: Callable[[httpx.Response], Awaitable[None]] | None = None, **options: Any
) -> httpx.AsyncClient:
    """Open an HTTP client that accepts no answer of more than `ANSWER_BYTES`.

    It requests uncompressed answers and accepts no others: a few kilobytes could unpack to
    gigabytes. This is done with event hooks rather than a transport, because httpx ignores the
    proxy settings of the environment if it is given a transport.

    Args:
        on_response: Called with every response before its body is read.
        **options: Further arguments of `httpx.AsyncClient`.
    """
    import httpx

    async def bound(response: httpx.Response) -> None:
        _bound(response)

    hooks = [bound, *([on_response] if on_response else [])]
    headers = {**options.pop("headers", {}), **_PLAIN}
    trusted = _read_certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return httpx.AsyncClient(
        headers=headers, event_hooks={"response": hooks}, verify=trusted, **options
    )


@lru_cache(maxsize=4)
def _read_certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return the certificates that httpx trusts, which take longer to read than a request.

    Args:
        file: SSL_CERT_FILE, which httpx reads itself.
        folder: SSL_CERT_DIR, likewise.
    """
    import httpx

    return httpx.create_ssl_context()


def open_blocking_client(**options: Any) -> httpx.Client:
    """Open a synchronous client with the same limits as that of `open_client`.

    Args:
        **options: Arguments of `httpx.Client`.
    """
    import httpx

    return httpx.Client(headers=_PLAIN, event_hooks={"response": [_bound]}, **options)


def _bound(response: httpx.Response) -> None:
    """Limit the bytes that are read of a response.

    Raises:
        httpx.RemoteProtocolError: It is compressed or, while it is read, too long.
    """
    import httpx

    def refuse(why: str) -> NoReturn:
        raise httpx.RemoteProtocolError(f"its answer {why}", request=response.request)

    events = response.headers.get("content-type", "").startswith("text/event-stream")
    most = STREAM_BYTES if events else ANSWER_BYTES
    size = 0

    def count(part: bytes) -> bytes:
        nonlocal size
        size += len(part)
        return part if size <= most else refuse(f"has more than {most // 2**20} MiB")

    class Bounded(httpx.AsyncByteStream, httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return map(count, cast("httpx.SyncByteStream", stream))

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for part in cast("httpx.AsyncByteStream", stream):
                yield count(part)

        def close(self) -> None:
            cast("httpx.SyncByteStream", stream).close()

        async def aclose(self) -> None:
            await cast("httpx.AsyncByteStream", stream).aclose()

    stream = response.stream
    if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        refuse("is compressed, which was not asked for")
    response.stream = Bounded()


def check_proxies() -> None:
    """Check that the HTTP client accepts the proxy settings of the environment.

    A client reads all of them when it is created, so one that it cannot use fails every request.

    Raises:
        SourceError: It does not; the message contains the settings without logins.
    """
    proxies = getproxies()
    if not proxies:
        return
    import httpx

    try:
        httpx.Client(verify=False).close()
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        seen = ", ".join(f"{name}_proxy={hide_login(url)}" for name, url in proxies.items())
        remedy = (
            "install socksio, which SOCKS needs"
            if isinstance(error, ImportError)
            else "use addresses such as http://host:port or socks5://host:port"
        )
        raise SourceError(
            f"the proxy settings of the environment ({seen}) cannot be used; {remedy}, or unset "
            "them"
        ) from None


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how long a service asks to wait, in seconds, at least 0 (RFC 9110, section 10.2.3).

    Args:
        headers: Headers of an answer, in lower case. `retry-after-ms`, which OpenAI-compatible
            servers send, takes precedence because it is more precise.
    """
    seconds = _read_number(headers.get("retry-after-ms"), 1000.0)
    value = headers.get("retry-after")
    if seconds is None:
        seconds = _read_number(value)
    if seconds is None and value is not None:
        seconds = _seconds_until(value)
    return None if seconds is None else max(0.0, seconds)


def _read_number(value: str | None, per_second: float = 1.0) -> float | None:
    try:
        number = float(value or "") / per_second
    except ValueError:
        return None
    return number if isfinite(number) else None


def _seconds_until(moment: str) -> float | None:
    try:
        then = parsedate_to_datetime(moment)
    except (ValueError, OverflowError):
        return None
    # A zone of "-0000" is parsed as none.
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return (then - datetime.now(UTC)).total_seconds()
