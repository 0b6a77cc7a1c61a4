"""exa-py: whether it still takes no HTTP client and still drops the headers of an error."""

from __future__ import annotations

import asyncio
import inspect
import warnings

import httpx
import pytest
from exa_py import AsyncExa
from exa_py.api_warnings import ExaWarning

from rsearch_cli.compat.exa import silence_warnings, with_http_client


def test_exa_still_takes_no_http_client() -> None:
    """When this fails, `with_http_client` may no longer be needed."""
    assert not [name for name in inspect.signature(AsyncExa).parameters if "client" in name]


def test_an_error_still_has_no_headers() -> None:
    """When this fails, the response hook of the Exa client may no longer be needed."""

    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"retry-after": "7"}, json={"error": "slow down"})

    async def search() -> None:
        exa = AsyncExa("key", "http://exa.example")
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(refuse), base_url=exa.base_url
        ) as client:
            await with_http_client(exa, client).search("q")

    with pytest.raises(ValueError, match="429") as caught:
        asyncio.run(search())
    assert not hasattr(caught.value, "response")


def test_its_warnings_are_silent() -> None:
    with warnings.catch_warnings():
        silence_warnings()
        assert warnings.filters[0][::2] == ("ignore", ExaWarning, 0)
