"""Private reaches into exa-py, checked on 2.28.0."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx
    from exa_py import AsyncExa


def use_http_client(exa: AsyncExa, client: httpx.AsyncClient) -> None:
    """Let an Exa client send its requests with an HTTP client of ours.

    exa-py takes none, and puts the status of an error into the text of a `ValueError`, without the
    headers: a response hook sees both. A client of ours also bounds the size of answers.
    """
    exa._client = client


def silence_warnings() -> None:
    """Keep exa-py from printing, as it is, what an answer calls a warning."""
    from exa_py.api_warnings import ExaWarning

    warnings.simplefilter("ignore", ExaWarning)
