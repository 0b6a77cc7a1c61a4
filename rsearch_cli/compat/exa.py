"""Private reaches into exa-py, checked on 2.28.0."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx
    from exa_py import AsyncExa


def with_http_client(exa: AsyncExa, client: httpx.AsyncClient) -> AsyncExa:
    """Return a copy of an Exa client that sends its requests with an HTTP client of ours.

    exa-py takes none, and puts the status of an error into the text of a `ValueError`, without the
    headers: a response hook sees both. A client of ours also bounds the size of answers. To copy is
    cheaper than to create: each new one looks up the version of its package.
    """
    exa = copy.copy(exa)
    exa._client = client
    return exa


def silence_warnings() -> None:
    """Keep exa-py from printing, as it is, what an answer calls a warning."""
    from exa_py.api_warnings import ExaWarning

    warnings.simplefilter("ignore", ExaWarning)
