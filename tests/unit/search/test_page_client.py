"""Requests for pages: redirects, robots.txt, bounds, and what a hostile site may send."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from typing import Any

import pytest
from faults import Fault, Faults
from local_http import Raw
from sites import PUBLIC, Internet, SiteServer, html, page, redirect, resolve_public
from socks import SocksProxy

from rsearch_cli import __version__
from rsearch_cli.search.page_client import MOST_REDIRECTS, PAGE_BYTES, Page, PageClient, Unreadable
from rsearch_cli.services.http import CONTACT_VARIABLE
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.public_network import PublicNetwork, Resolve

URL = "http://site.example/a"


@pytest.fixture
def server() -> Iterator[SiteServer]:
    with SiteServer({"/a": html("A page.")}) as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


def fetch(
    internet: Internet | None,
    url: str = URL,
    *,
    robots: str | None = None,
    resolve: Resolve = resolve_public,
    seconds: float = 10.0,
    **options: Any,
) -> Page:
    """Fetch one page; `robots` stands for every robots.txt, None requests them."""

    async def run() -> Page:
        network = PublicNetwork(resolve, internet) if internet else None
        client = PageClient(network=network, **options)

        async def read_robots(origin: str) -> str:
            return await client.fetch_robots(origin) if robots is None else robots

        try:
            async with asyncio.timeout(seconds):
                return await client.fetch(url, read_robots)
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_page_is_requested_politely(server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTACT_VARIABLE, "me@example.org")  # for the wiki, not for any site
    found = fetch(Internet(server))
    assert found.is_html and found.charset == "utf-8" and b"A page." in found.body
    robots, asked = server.requests
    assert robots.path == "/robots.txt"
    assert asked.headers["user-agent"] == robots.headers["user-agent"] == f"rsearch/{__version__}"
    assert asked.headers["accept-encoding"] == "identity"
    assert not asked.headers.keys() & {"cookie", "referer", "authorization"}


def test_the_fragment_is_not_sent_and_the_query_is(server) -> None:
    fetch(Internet(server), f"{URL}?b=1#c", robots="")
    assert server.requests[0].query == {"b": "1"}


def test_a_redirect_is_followed_to_another_host(server) -> None:
    server.pages["/a"] = redirect("//other.example/b#c")
    server.pages["other.example/b"] = html("There.")
    assert b"There." in fetch(Internet(server)).body
    assert server.asked == ["site.example/a", "other.example/b"]


def test_tls_is_asked_for_the_name_and_not_the_address(server) -> None:
    internet = Internet(server)
    fetch(internet, "https://site.example/a", robots="")
    assert (internet.tls_names, internet.connected) == (["site.example"], [(PUBLIC, 443)])


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:{port}/secret",
        "http://localhost:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/secret",
        "http://2130706433/secret",
        "http://me:pass@site.example/secret",
        "http://site.example:22/",
        "file:///etc/passwd",
        "data:text/html,x",
    ],
)
def test_a_redirect_to_the_inside_is_refused(server, place: str) -> None:
    server.pages["/a"] = redirect(place.format(port=server.url.rpartition(":")[2]))
    internet = Internet(server)
    with pytest.raises(PermanentFailure):
        fetch(internet)
    assert server.asked == ["site.example/a"]
    assert {address for address, _ in internet.connected} == {PUBLIC}


def test_a_redirect_to_a_name_of_the_inside_is_refused(server) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.7"] if host == "inside.example" else [PUBLIC]

    server.pages["/a"] = redirect("http://inside.example/secret")
    with pytest.raises(PermanentFailure, match=r"inside\.example has the address 10\.0\.0\.7"):
        fetch(Internet(server), resolve=resolve)
    assert server.asked == ["site.example/a"]


def test_a_redirect_of_robots_to_the_inside_is_refused(server) -> None:
    server.pages["/robots.txt"] = redirect("http://127.0.0.1/robots.txt")
    with pytest.raises(PermanentFailure, match="is not on the public internet"):
        fetch(Internet(server))
    assert server.asked == []


def test_redirects_end(server) -> None:
    server.pages["/a"] = redirect("/a")
    with pytest.raises(Unreadable, match=f"redirects more than {MOST_REDIRECTS} times"):
        fetch(Internet(server), robots="")
    assert len(server.requests) == MOST_REDIRECTS + 1


@pytest.mark.parametrize("location", ["", "http://[", "http://site.example:x/"])
def test_a_redirect_to_no_address_is_a_failure(server, location: str) -> None:
    server.pages["/a"] = redirect(location)
    with pytest.raises((Unreadable, PermanentFailure)):
        fetch(Internet(server), robots="")


def test_robots_are_asked_at_every_host(server) -> None:
    server.pages["/a"] = redirect("http://other.example/a")
    server.pages["other.example/robots.txt"] = page(
        b"User-agent: rsearch\nDisallow: /", "text/plain"
    )
    with pytest.raises(Unreadable, match=r"robots\.txt of other\.example does not allow it"):
        fetch(Internet(server))
    assert server.asked == ["site.example/a"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_site_without_robots_allows_everything(server, status: int) -> None:
    server.pages["/robots.txt"] = (status, page(b"User-agent: *\nDisallow: /"))
    assert fetch(Internet(server)).body


@pytest.mark.parametrize(
    "fault", [Fault.SERVER_ERROR, Fault.OVERLOADED, Fault.RATE_LIMIT, Fault.CUT]
)
def test_robots_that_cannot_be_read_allow_nothing(server, fault: Fault) -> None:
    server.pages["/robots.txt"] = page(b"User-agent: *\nAllow: /", "text/plain")
    server.faults = Faults([fault], first=1)
    if fault is Fault.CUT:
        server.pages["/robots.txt"] = page(b"Allow: /", Content_Length="900")
    with pytest.raises((TransientFailure, TimeoutError)):
        fetch(Internet(server), seconds=0.3)
    assert server.asked == []


def test_of_a_long_page_the_beginning_is_read(server) -> None:
    server.pages["/a"] = page(b"<p>" + b"x" * (2 * PAGE_BYTES), Content_Length=str(100 * 2**20))
    assert len(fetch(Internet(server)).body) == PAGE_BYTES


def test_a_body_without_an_end_is_read_to_the_limit(server) -> None:
    server.pages["/a"] = page(b"x" * (3 * PAGE_BYTES), Content_Length=str(2**40))
    assert len(fetch(Internet(server)).body) == PAGE_BYTES


def test_a_compressed_page_is_not_read(server) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    server.pages["/a"] = page(bomb, Content_Encoding="gzip")
    with pytest.raises(Unreadable, match="it is compressed, which was not asked for"):
        fetch(Internet(server))


@pytest.mark.parametrize(
    ("kind", "is_html"),
    [
        ("text/html", True),
        ("TEXT/HTML;charset=ISO-8859-1", True),
        ("application/xhtml+xml", True),
        ("text/plain", False),
        ("application/pdf", None),
        ("image/png", None),
        ("application/octet-stream", None),
        ("application/json", None),
    ],
)
def test_only_html_and_plain_text_are_read(server, kind: str, is_html: bool | None) -> None:
    server.pages["/a"] = page(b"text", kind)
    if is_html is None:
        with pytest.raises(Unreadable, match=f"its type is {kind}; only HTML and plain text"):
            fetch(Internet(server))
    else:
        assert fetch(Internet(server)).is_html is is_html


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_refused_page_is_not_asked_for_again(server, status: int) -> None:
    server.pages["/a"] = (status, html("No."))
    with pytest.raises(Unreadable, match=f"its server answered {status}"):
        fetch(Internet(server), robots="")


@pytest.mark.parametrize(("status", "wait"), [(429, 0.0), (503, 0.0), (500, None)])
def test_a_busy_site_may_answer_later(server, status: int, wait: float | None) -> None:
    server.faults = Faults([Fault(str(status))])
    with pytest.raises(TransientFailure, match=rf"site\.example answered {status}") as caught:
        fetch(Internet(server), robots="")
    assert caught.value.retry_after == wait and caught.value.free


def test_a_site_that_asks_for_a_long_wait_is_not_waited_for(server) -> None:
    server.pages["/a"] = (503, Raw(b"", {"Retry-After": "600"}))
    with pytest.raises(PermanentFailure, match="answered 503 and asks to wait 600 s"):
        fetch(Internet(server), robots="")


def test_a_name_that_does_not_exist_is_a_failure(server) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(TransientFailure, match=r"the name site\.example has no address"):
        fetch(Internet(server), robots="", resolve=resolve)


def test_a_private_page_is_read_on_request_only(server) -> None:
    assert b"A page." in fetch(None, f"{server.url}/a", private=True).body
    with pytest.raises(PermanentFailure, match=r"at which no page is read"):
        fetch(None, f"{server.url}/a")
    assert len(server.requests) == 2


def test_a_proxy_is_asked_and_gets_no_inner_host(server, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removeprefix("http://"))
    server.pages["site.example" + URL] = html("Through the proxy.")

    async def never(host: str, port: int) -> list[str]:
        raise AssertionError("the proxy resolves the names")

    assert b"Through the proxy." in fetch(Internet(server), resolve=never, robots="").body
    assert [request.path for request in server.requests] == [URL]
    for inner in ("http://10.0.0.1/", "http://127.1/", "http://router/", "http://a.internal/"):
        with pytest.raises(PermanentFailure):
            fetch(Internet(server), inner, robots="")
    assert [request.path for request in server.requests] == [URL]


def test_a_socks_proxy_is_asked(server, monkeypatch) -> None:
    pytest.importorskip("socksio", reason="it comes with httpx[socks]")
    port = server.url.rpartition(":")[2]
    with SocksProxy() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        server.pages["/a"] = html("Through the proxy.")
        found = fetch(None, f"http://site.example:{port}/a", robots="", private=True)
    assert b"Through the proxy." in found.body
    assert proxy.asked == [("site.example", int(port))]


def test_a_host_without_proxy_is_connected_to_directly(server, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "site.example")
    internet = Internet(server)
    fetch(internet, robots="")
    assert internet.connected == [(PUBLIC, 80)]
