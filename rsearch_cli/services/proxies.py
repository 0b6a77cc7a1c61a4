"""The proxy settings of the environment, checked before the first request needs them."""

from __future__ import annotations

from urllib.request import getproxies

from rsearch_cli.errors import SourceError
from rsearch_cli.recipe.addresses import hide_login


def check_proxies() -> None:
    """See whether the HTTP client takes the proxies that the environment names.

    The client reads all of them whenever it is made, so one that it cannot use stops every request.

    Raises:
        SourceError: It does not; the settings are named, without logins.
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
            else "give addresses such as http://host:port or socks5://host:port"
        )
        raise SourceError(
            f"the proxy settings of the environment ({seen}) cannot be used; {remedy}, or unset "
            "them"
        ) from None
