"""Serves the index of a corpus with the `/retrieve` protocol of Search-R1 and SkyRL."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.search.retriever import RETRIEVE, write_document
from rsearch_cli.search.sources import SearchRequest, SearchSource
from rsearch_cli.serving.api_errors import ApiError, bad_field
from rsearch_cli.serving.guard import App, Receive, Scope, Send, check_addressed_here
from rsearch_cli.serving.local_server import guarded, run_server
from rsearch_cli.serving.request_body import read_request_body

logger = logging.getLogger(__name__)

_MOST_QUERIES = 512
_MOST_PASSAGES = 100
_DEFAULT_TOP_K = 3


def serve_source(
    source: SearchSource,
    listener: socket.socket,
    key: str | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a search source until Ctrl-C or SIGTERM.

    Args:
        source: Answers; it is not closed.
        listener: A bound socket; closed at the end.
        key: What clients have to send as a bearer token; None answers this machine only.
        on_ready: Called with the address to put into a recipe.
    """
    host, port = listener.getsockname()[:2]
    run_server(
        build_retriever_app(source, key),
        listener,
        lambda: on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}{RETRIEVE}"),
    )


def build_retriever_app(source: SearchSource, key: str | None = None) -> App:
    """Build the ASGI app; see `serve_source`."""
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route, Router

    async def retrieve(request: Request) -> Response:
        sent = await read_request_body(request.scope, request.receive)
        try:
            body = json.loads(sent)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is not JSON ({error})", "invalid_json") from error
        queries, top_k, with_scores = read_body(body)
        searches = [source.search(SearchRequest(query, top_k=top_k)) for query in queries]
        found = await asyncio.gather(*searches)
        result = {"result": [_write(rows, with_scores) for rows in found]}
        # Passages may contain lone surrogates.
        return Response(dump_json(result, ensure_ascii=True), media_type="application/json")

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise ApiError(404, f"there is nothing here; POST to {RETRIEVE}", "not_found")

    router = Router(routes=[Route(RETRIEVE, retrieve, methods=["POST"])], default=refuse)
    return partial(guarded, router, partial(_check_client, key))


def read_body(body: Any) -> tuple[list[str], int, bool]:
    """Return the queries, the number of passages for each, and whether scores are wanted.

    Raises:
        ApiError: A field is missing or has the wrong type.
    """
    fields = body if isinstance(body, dict) else {}
    queries = fields.get("queries")
    if not isinstance(queries, list) or not all(isinstance(q, str) for q in queries):
        raise bad_field("queries", "must be a list of strings")
    if len(queries) > _MOST_QUERIES:
        raise bad_field("queries", f"has {len(queries)}; send at most {_MOST_QUERIES}")
    top_k = fields.get("topk")
    top_k = _DEFAULT_TOP_K if top_k is None else top_k
    if type(top_k) is not int or not 1 <= top_k <= _MOST_PASSAGES:
        raise bad_field("topk", f"is {top_k!r:.40}; it has to be 1 to {_MOST_PASSAGES}")
    return queries, top_k, bool(fields.get("return_scores"))


def _write(rows: Any, with_scores: bool) -> list[dict[str, Any]]:
    if with_scores:
        return [{"document": write_document(p), "score": p.score} for p in rows]
    return [write_document(passage) for passage in rows]


def _check_client(key: str | None, headers: Mapping[str, str]) -> None:
    if key is None:
        check_addressed_here(headers)
    elif not hmac.compare_digest(
        headers.get("authorization", "").encode(), f"Bearer {key}".encode()
    ):
        raise ApiError(401, "the key is missing or wrong", "invalid_api_key")
