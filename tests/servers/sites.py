"""Web sites on a local server: pages by host and path, and the network that leads to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpcore
from local_http import Answer, LocalServer, Raw, Received

PUBLIC = "93.184.215.14"
"""The address that every name has, unless the test says otherwise."""


def html(*paragraphs: str, title: str = "A page") -> Raw:
    """A page of HTML."""
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return page(f"<html><head><title>{title}</title></head><body>{body}</body></html>".encode())


def text(*paragraphs: str) -> Raw:
    """A page of plain text."""
    return page("\n\n".join(paragraphs).encode(), "text/plain")


def page(body: bytes, kind: str = "text/html; charset=utf-8", **headers: str) -> Raw:
    """A page of any type."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Raw(body, {"Content-Type": kind} | more)


def redirect(location: str) -> Answer:
    """An answer that leads elsewhere."""
    return 302, Raw(b"", {"Location": location})


class SiteServer(LocalServer):
    """All sites of a test: 404 for whatever `pages` does not have.

    Attributes:
        pages: An address without its scheme, such as `site.example/a`, or a path that every host
            has, to the answer.
    """

    def __init__(self, pages: Mapping[str, Answer | Raw] = {}, **settings: Any) -> None:
        super().__init__(retry_after="0", **settings)
        self.pages: dict[str, Answer | Raw] = dict(pages)

    def respond(self, request: Received) -> Answer:
        host = request.headers["host"]
        found = self.pages.get(host + request.path, self.pages.get(request.path))
        if found is None:
            return 404, page(b"<p>There is no such page.</p>")
        return (200, found) if isinstance(found, Raw) else found

    def describe_error(self, status: int, message: str) -> dict[str, str]:
        return {"message": message}

    @property
    def asked(self) -> list[str]:
        """The addresses that were requested, without those of a robots.txt."""
        paths = [request.headers["host"] + request.path for request in self.requests]
        return [path for path in paths if not path.endswith("/robots.txt")]


class PlainStream(httpcore.AsyncNetworkStream):
    """A connection on which TLS is only noted, because the local server has no certificate."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, names: list[str]) -> None:
        self._stream = stream
        self._names = names

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        assert ssl_context.check_hostname
        self._names.append(str(server_hostname))
        return self

    def get_extra_info(self, info: str) -> Any:
        return None if info == "ssl_object" else self._stream.get_extra_info(info)


class Internet(httpcore.AsyncNetworkBackend):
    """A network in which every address is the local server.

    Attributes:
        connected: `(address, port)` of every connection.
        tls_names: Names for which certificates were asked.
        dead: Addresses that do not answer.
    """

    def __init__(self, server: SiteServer, dead: Sequence[str] = ()) -> None:
        self._server = server
        self.connected: list[tuple[str, int]] = []
        self.tls_names: list[str] = []
        self.dead = dead

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *others: Any, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError(f"{host} does not answer")
        local = int(self._server.url.rpartition(":")[2])
        stream = await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", local, timeout)
        return PlainStream(stream, self.tls_names)


async def resolve_public(host: str, port: int) -> list[str]:
    """Resolve every name to one public address."""
    return [PUBLIC]
