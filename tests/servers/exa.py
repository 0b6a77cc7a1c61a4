"""A local server of Exa's `POST /search` with invented pages, for the real `exa-py` client.

The same query in the same category always finds the same pages. A request that Exa would refuse is
refused in Exa's words. As a script it prints one JSON line with its URL, and serves until its input
is closed or it is interrupted:

    python tests/servers/exa.py --port 0 --latency-ms 200 --jitter-ms 50
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, get_args

from faults import CHAOS, Faults
from local_http import Answer, LocalServer, Received

API_KEY = "exa-key-for-tests-only"
"""The key that the server takes unless it is told another."""

USD_PER_SEARCH = 0.007
"""What `auto` costs with up to 10 results (https://exa.ai/docs/admin/pricing, 2026-11-26)."""

Page = dict[str, Any]

FIELDS: dict[str, type | tuple[type, ...]] = {
    "query": str,
    "numResults": int,
    "category": str,
    "includeDomains": list,
    "excludeDomains": list,
    "startPublishedDate": str,
    "endPublishedDate": str,
    "type": str,
    "contents": dict,
}
_TAGS = {
    400: "INVALID_REQUEST_BODY",
    401: "INVALID_API_KEY",
    402: "NO_MORE_CREDITS",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    429: "RATE_LIMIT_EXCEEDED",
}


class ExaServer(LocalServer):
    """Exa's search endpoint; see `LocalServer` for latency, faults and counts.

    Attributes:
        api_key: The key that a request must carry.
        price: What a search costs in USD, or from the number of the search, counted from 0, to
            what it costs; each answer states it. May be set anew at any time.
        usd: What is on the bill, in USD; an answer that was lost on its way counts.
    """

    def __init__(
        self,
        find_pages: Callable[[dict[str, Any]], list[Page]] | None = None,
        *,
        api_key: str = API_KEY,
        price: float | Callable[[int], float] = USD_PER_SEARCH,
        **settings: Any,
    ) -> None:
        """Describe the server.

        Args:
            find_pages: Gives the pages for a request's body, best first, each with `url`, `title`
                and `text`, whole; None makes them up from the query.
            api_key: The key that a request must carry.
            price: What a search costs, in USD.
            **settings: Those of `LocalServer`.
        """
        super().__init__(**settings)
        self.api_key = api_key
        self.price = price
        self.usd = 0.0
        self._searches = 0
        self._find_pages = find_pages or make_pages

    def respond(self, request: Received) -> Answer:
        """Check the request as Exa does, and answer it."""
        if (request.method, request.path) != ("POST", "/search"):
            return 404, self.describe_error(404, f"no endpoint {request.path}")
        if request.headers.get("x-api-key") != self.api_key:
            return 401, self.describe_error(401, "Invalid API key")
        if (flaw := find_flaw(request.body)) is not None:
            return 400, self.describe_error(400, flaw)
        usd = self.price(self._searches) if callable(self.price) else self.price
        self._searches += 1
        self.usd += usd
        return 200, make_answer(request.body, self._find_pages(request.body), usd)

    def describe_error(self, status: int, message: str) -> dict[str, str]:
        """Exa's error body: the words, a tag to tell errors apart, and an id for its support."""
        tag = _TAGS.get(status, "INTERNAL_ERROR")
        return {"requestId": f"local-{len(self.requests)}", "error": message, "tag": tag}


def find_flaw(body: Any) -> str | None:
    """What Exa would refuse in the body of a search, or None."""
    if not isinstance(body, dict) or not isinstance(body.get("query"), str) or not body["query"]:
        return "query is required"
    for name, value in body.items():
        if name not in FIELDS:
            return f"unrecognized key {name}"
        if not isinstance(value, FIELDS[name]) or isinstance(value, bool):
            return f"invalid type of {name}"
    if not 1 <= body.get("numResults", 10) <= 100:
        return "numResults must be between 1 and 100"
    for name, known in find_literals().items():
        if body.get(name) not in {None, *known}:
            return f"invalid {name} {body[name]}"
    contents = body.get("contents", {})
    text = contents.get("text", {})
    if set(contents) - {"text"} or set(text) - {"maxCharacters"}:
        return "contents: this server gives text with maxCharacters only"
    if not isinstance(text.get("maxCharacters", 1), int) or text.get("maxCharacters", 1) < 1:
        return "contents.text.maxCharacters must be a positive integer"
    return None


@cache
def find_literals() -> dict[str, tuple[str, ...]]:
    """The values that the installed exa-py knows for a request's category and type.

    Exa itself takes any text and ignores what it does not know; this server refuses it, so that a
    name which is out of date fails a test.
    """
    from exa_py.api import Category, SearchType

    return {"category": get_args(Category), "type": get_args(SearchType)}


def make_answer(
    body: dict[str, Any], pages: list[Page], usd: float = USD_PER_SEARCH
) -> dict[str, Any]:
    """Exa's answer: the pages as results, their texts cut off hard at the length asked for.

    It has no search type, which Exa removed in May 2026, and no score, which no type gives now.
    """
    most = body.get("contents", {}).get("text", {}).get("maxCharacters")
    results = [
        {
            "id": page["url"],
            "url": page["url"],
            "title": page["title"],
            "publishedDate": page.get("publishedDate", "2024-05-01T00:00:00.000Z"),
            "author": None,
            "text": page["text"][:most],
        }
        for page in pages[: body.get("numResults", 10)]
    ]
    return {
        "requestId": "local",
        "results": results,
        "searchTime": 12.5,
        "costDollars": {"total": usd, "search": {"neural": usd}},
    }


def make_pages(body: dict[str, Any]) -> list[Page]:
    """Make pages up, the same ones for the same query and category."""
    category = body.get("category", "web")
    name = hashlib.sha256(f"{category}/{body['query']}".encode()).hexdigest()[:12]
    return [
        {
            "url": f"https://example.org/{name}/{rank}",
            "title": f"{body['query'].title()}, part {rank}",
            "text": " ".join(
                f"Sentence {i} of part {rank} tells of {body['query']} in the {category}."
                for i in range(1, 41)
            ),
        }
        for rank in range(1, body.get("numResults", 10) + 1)
    ]


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(description="A local server that speaks Exa's /search.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--fail-share", type=float, default=0.0, help="0 to 1")
    parser.add_argument("--stall-seconds", type=float, default=30.0)
    args = parser.parse_args()
    server = ExaServer(
        port=args.port,
        latency=args.latency_ms / 1000,
        jitter=args.jitter_ms / 1000,
        faults=Faults(CHAOS, share=args.fail_share),
        stall_seconds=args.stall_seconds,
    )
    with server:
        print(json.dumps({"url": server.url, "api_key": server.api_key}), flush=True)
        with suppress(KeyboardInterrupt):
            sys.stdin.read()
        print(json.dumps(server.counts()), flush=True)


if __name__ == "__main__":
    main()
