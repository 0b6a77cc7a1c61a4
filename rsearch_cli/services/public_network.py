"""Connections to public addresses only: what a page from outside names must not reach the inside.

Names are resolved here, every address is checked, and the connection goes to a checked address, so
that a name cannot change its address in between (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import httpcore

from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.services.outcomes import PermanentFailure

if TYPE_CHECKING:
    import httpx

PORTS = frozenset((80, 443, 8080, 8443))
"""Ports at which public pages are read."""

CONNECT_SECONDS = 5.0
"""Longest wait for a connection to one address."""

MOST_URL_CHARS = 2000

_ALLOWED = "search.read_private_addresses allows it"

# From the IANA registries of special-purpose addresses, and multicast. `is_global` of Python 3.11
# lacks some of them.
_INSIDE = tuple(
    map(
        ip_network,
        """
        0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
        192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
        198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
        2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
        """.split(),
    )
)
# All other IPv6 addresses are local, reserved, or contain an IPv4 address (::ffff:0:0/96 is mapped,
# 64:ff9b::/96 is NAT64); 2001::/23 above includes Teredo, and 2002::/16 is 6to4.
_PUBLIC_IPV6 = ip_network("2000::/3")
# Names that only an inner network or the machine itself can resolve (RFC 6761, 6762, 8375, 9476).
_INSIDE_NAMES = ("localhost", "local", "internal", "home.arpa", "lan", "intranet", "test", "alt")

# Not the threads of the event loop: names that resolve slowly must not hold up searches.
_resolvers = ThreadPoolExecutor(8, "page-names")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name for a port; raises `OSError` if there are none."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and (ip.scope_id or ip not in _PUBLIC_IPV6):
        return False
    return not any(ip in network for network in _INSIDE if network.version == ip.version)


def check_url(url: str, *, private: bool) -> httpx.URL:
    """Return the URL of a page that may be requested, without its fragment.

    Only what the URL itself says is checked; the addresses of its host are when it is connected to.

    Args:
        url: Any text.
        private: Whether other ports and private hosts are allowed.

    Raises:
        PermanentFailure: It may not be requested.
    """
    import httpx

    def refuse(why: str) -> PermanentFailure:
        return PermanentFailure(f"{hide_login(url)[:200]} {why}", free=True)

    if len(url) > MOST_URL_CHARS:
        raise refuse("is too long")
    try:
        parsed = httpx.URL(url).copy_with(fragment=None)
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    except (httpx.InvalidURL, ValueError, TypeError):
        raise refuse("is not a URL") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise refuse("is not an http or https address")
    if parsed.userinfo:
        raise refuse("contains a user name or a password")
    if parsed.port is not None and parsed.port not in (range(1, 65536) if private else PORTS):
        raise refuse(f"has the port {parsed.port}, at which no page is read; {_ALLOWED}")
    if not private and not _may_be_public(host):
        raise refuse(f"is not on the public internet; {_ALLOWED}")
    return parsed


def _may_be_public(host: str) -> bool:
    """Whether a host is a public address, or a name that may have one."""
    last = host.rpartition(".")[2]
    if ":" in host or last.isdigit() or last.startswith("0x"):
        # Resolvers also read 127.1, 0x7f000001 and 2130706433 as addresses: refused as spelt.
        return is_public(host)
    inside = any(host == name or host.endswith(f".{name}") for name in _INSIDE_NAMES)
    return "." in host and not inside


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host as the system resolves it; see `Resolve`."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        _resolvers, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects to a host only if all its addresses are public.

    Args:
        resolve: Returns the addresses of a name.
        network: Makes the connections, to addresses.
    """

    def __init__(
        self,
        resolve: Resolve = resolve_host,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._resolve = resolve
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that answers.

        Raises:
            PermanentFailure: One of its addresses is not public.
            httpcore.ConnectError: It has no address, or none answers.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} has no address") from error
        if inside := [address for address in addresses if not is_public(address)]:
            raise PermanentFailure(
                f"{host} has the address {inside[0]}, which is not on the public internet; "
                f"{_ALLOWED}",
                free=True,
            )
        seconds = CONNECT_SECONDS if timeout is None else min(timeout, CONNECT_SECONDS)
        failure: Exception = httpcore.ConnectError(f"the name {host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    address, port, seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
