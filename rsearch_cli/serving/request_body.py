"""Reads the body of a request, with a limit on its size and on the time that it takes."""

from __future__ import annotations

import asyncio

from rsearch_cli.serving.api_errors import ApiError
from rsearch_cli.serving.guard import Receive, Scope
from rsearch_cli.serving.settings import BODY_SECONDS, MAX_BODY_BYTES


class ClientGone(Exception):
    """The client has hung up; nothing more can be sent."""


async def read_request_body(scope: Scope, receive: Receive) -> bytes:
    """Read the body of a request.

    Raises:
        ApiError: It is too large, or takes too long.
        ClientGone: The client hung up.
    """
    too_large = ApiError(413, f"the body has more than {MAX_BODY_BYTES:,} bytes", "body_too_large")
    if int(dict(scope["headers"]).get(b"content-length", b"0")) > MAX_BODY_BYTES:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        raise ApiError(408, "the body did not arrive in time", "timeout") from None
