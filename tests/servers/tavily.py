"""A local server of Tavily's `POST /search`, from its public description.

It refuses what Tavily refuses, and in addition fields that it does not know, so that an outdated
name fails a test.
"""

from __future__ import annotations

from typing import Any

from local_http import Answer, LocalServer, Received
from web_results import make_results

API_KEY = "tvly-key-for-tests-only"
USD_PER_CREDIT = 0.008

_CHOICES = {
    "search_depth": ("basic", "advanced", "fast", "ultra-fast"),
    "topic": ("general", "news", "finance"),
    "time_range": ("day", "week", "month", "year"),
}
_TYPES: dict[str, type] = {
    "query": str,
    "max_results": int,
    "include_usage": bool,
    "include_domains": list,
    "exclude_domains": list,
    "start_date": str,
    "end_date": str,
    **dict.fromkeys(_CHOICES, str),
}


class TavilyServer(LocalServer):
    """Tavily's search endpoint; see `LocalServer` for latency, faults and counts.

    Attributes:
        usd: What is on the bill, in USD; an answer that was lost on its way counts.
        refuse: Status and message of a refusal that every request meets, or None.
    """

    def __init__(self, *, api_key: str = API_KEY, **settings: Any) -> None:
        super().__init__(**settings)
        self.usd = 0.0
        self.refuse: tuple[int, str] | None = None
        self._api_key = api_key

    def respond(self, request: Received) -> Answer:
        """Check the request as Tavily does, and answer it."""
        if (request.method, request.path) != ("POST", "/search"):
            return 404, {"detail": "Not Found"}
        if request.headers.get("authorization") != f"Bearer {self._api_key}":
            return 401, self.describe_error(401, "Unauthorized: missing or invalid API key.")
        if self.refuse is not None:
            return self.refuse[0], self.describe_error(*self.refuse)
        body = request.body
        if flaws := find_flaws(body):
            return 422, {"detail": flaws}
        if len(body["query"]) > 400:
            words = "Query is too long. Max query length is 400 characters."
            return 400, self.describe_error(400, words)
        credits = 2 if body.get("search_depth") == "advanced" else 1
        self.usd += credits * USD_PER_CREDIT
        results = make_results(body["query"], body.get("topic", "general"), body["max_results"])
        answer = {
            "query": body["query"],
            "answer": None,
            "images": [],
            "results": [
                {"url": url, "title": title, "content": text, "score": 0.9, "raw_content": None}
                for url, title, text in results
            ],
            "response_time": 0.5,
            "request_id": "local",
        }
        return 200, answer | ({"usage": {"credits": credits}} if body["include_usage"] else {})

    def describe_error(self, status: int, message: str) -> dict[str, Any]:
        """Tavily's error body."""
        return {"detail": {"error": message}}


def find_flaws(body: Any) -> list[dict[str, Any]]:
    """What Tavily's validation would refuse in the body of a search."""
    if not isinstance(body, dict) or not body.get("query"):
        return [{"loc": ["body", "query"], "msg": "Field required", "type": "missing"}]
    flaws = [
        {"loc": ["body", name], "msg": f"{value!r} is not valid", "type": "value_error"}
        for name, value in body.items()
        if not isinstance(value, _TYPES.get(name, ())) or value not in _CHOICES.get(name, [value])
    ]
    if not 0 <= body.get("max_results", 5) <= 20:
        flaws.append({"loc": ["body", "max_results"], "msg": "0 to 20", "type": "value_error"})
    return flaws
