"""Addresses that pages from outside may not lead to, in all their spellings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpcore
import pytest
from sites import PUBLIC, Internet, SiteServer

from rsearch_cli.services.outcomes import PermanentFailure
from rsearch_cli.services.public_network import PublicNetwork, check_url, is_public


@pytest.mark.parametrize(
    "address",
    """
    127.0.0.1 127.8.9.1 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1
    169.254.169.254 100.64.0.1 100.127.255.255 192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1
    203.0.113.9 192.88.99.1 224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:93.184.215.14 ::ffff:0:127.0.0.1
    64:ff9b::7f00:1 64:ff9b:1::a00:1 100::1 2001::1 2001:10::1 2001:20::1 2001:db8::1
    2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1
    2606:2800:21f::1%eth0 name.example 1.2.3 1.2.3.4.5
    """.split(),
)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    """
    93.184.215.14 1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255
    172.32.0.0 223.255.255.255 2606:2800:21f:cb07::1 2a00:1450:4001::200e 2001:4860:4860::8888
    """.split(),
)
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    """
    http://127.0.0.1/ http://127.1/ http://0x7f.1/ http://0x7f000001/ http://2130706433/
    http://017700000001/ http://0177.0.0.1/ http://127.0.0.1./ http://[::1]/
    http://[::ffff:127.0.0.1]/ http://[fe80::1%25eth0]/ http://0/ http://0.0.0.0/
    http://169.254.169.254/latest/meta-data http://localhost/ http://LOCALHOST./ http://a.localhost/
    http://metadata.google.internal/ http://printer.local/ http://router/ http://nas.home.arpa/
    http://１２７.0.0.1/ http://127。0。0。1/ http://ⓛocalhost/
    """.split(),
)
def test_hosts_that_spell_an_inner_address_are_refused(url: str) -> None:
    with pytest.raises(PermanentFailure, match=r"is not (on the public internet|a URL)"):
        check_url(url, private=False)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://site.example/", "is not an http or https address"),
        ("file:///etc/passwd", "is not an http or https address"),
        ("gopher://site.example/", "is not an http or https address"),
        ("javascript:alert(1)", "is not an http or https address"),
        ("//site.example/", "is not an http or https address"),
        ("http:///path", "is not an http or https address"),
        ("http://site.example:22/", "has the port 22"),
        ("http://site.example:6379/", "has the port 6379"),
        ("http://site.example:99999/", "has the port 99999"),
        ("http://site.example/" + "a" * 2000, "is too long"),
        ("http://site\x00.example/", "is not a URL"),
        ("http://user@site.example/", "contains a user name or a password"),
    ],
)
def test_other_addresses_are_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(PermanentFailure, match=why):
        check_url(url, private=False)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(PermanentFailure) as caught:
        check_url("http://me:hunter22@site.example/", private=True)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_does_not_exist_is_never_asked(port: int) -> None:
    with pytest.raises(PermanentFailure, match=f"has the port {port}"):
        check_url(f"http://127.0.0.1:{port}/", private=True)


def test_private_hosts_and_ports_are_allowed_on_request() -> None:
    assert (
        str(check_url("http://127.0.0.1:9000/a?b#c", private=True)) == "http://127.0.0.1:9000/a?b"
    )


@pytest.fixture
def internet() -> Iterator[Internet]:
    with SiteServer() as server:
        yield Internet(server)


def connect(internet: Internet, *answers: list[str] | Exception) -> None:
    """Connect once per answer of the resolver."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run() -> None:
        network = PublicNetwork(resolve, internet)
        for _ in answers:
            stream = await network.connect_tcp("site.example", 443, 5.0)
            await stream.aclose()

    asyncio.run(run())


def test_the_connection_goes_to_the_address_that_was_checked(internet) -> None:
    connect(internet, [PUBLIC])
    assert internet.connected == [(PUBLIC, 443)]


@pytest.mark.parametrize("inner", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "::1"])
def test_a_name_with_any_inner_address_is_not_connected_to(internet, inner: str) -> None:
    for answer in ([inner], [PUBLIC, inner], [inner, PUBLIC]):
        with pytest.raises(PermanentFailure, match=f"site.example has the address {inner}"):
            connect(internet, answer)
    assert internet.connected == []


def test_a_name_that_changes_its_address_is_checked_again(internet) -> None:
    with pytest.raises(PermanentFailure, match=r"127\.0\.0\.1"):
        connect(internet, [PUBLIC], ["127.0.0.1"])
    assert internet.connected == [(PUBLIC, 443)]


def test_the_next_address_is_tried(internet) -> None:
    internet.dead = ["2606:2800:21f::1"]
    connect(internet, ["2606:2800:21f::1", PUBLIC])
    assert [address for address, _ in internet.connected] == ["2606:2800:21f::1", PUBLIC]


@pytest.mark.parametrize("answer", [[], OSError("no such name"), UnicodeError("label too long")])
def test_a_name_without_an_address_cannot_be_reached(internet, answer) -> None:
    with pytest.raises(httpcore.ConnectError, match=r"site\.example has no address"):
        connect(internet, answer)
