"""A local SearXNG: `GET /search` with invented pages.

Written from https://docs.searxng.org/dev/search_api.html. Parameters that SearXNG would ignore are
refused here, so that a name which is out of date fails a test.
"""

from __future__ import annotations

from typing import Any

from local_http import Answer, LocalServer, Received

CATEGORIES = frozenset("general news science images videos it files music".split())
ENGINES = frozenset(("duckduckgo", "brave", "wikipedia", "bing news"))
_PARAMETERS = frozenset("q format categories engines language time_range safesearch pageno".split())
_RANGES = ("day", "week", "month", "year")

MAKER = {"url": "https://a.example/1", "title": "Tessa Korrin", "content": "A glass maker."}
TOWN = {"url": "https://b.example/2", "title": "Port Ellow", "content": "A harbour town."}


class SearxngServer(LocalServer):
    """An instance whose engines find the same pages for every query.

    Attributes:
        pages: Results, best first, as SearXNG writes them.
        formats: Output formats that its settings allow.
        silent: Engines that do not answer, with the reason of each.
    """

    def __init__(self, **settings: Any) -> None:
        """Describe the server; `settings` are those of `LocalServer`."""
        super().__init__(**settings)
        self.pages: list[Any] = [MAKER, TOWN]
        self.formats = {"html", "json"}
        self.silent: list[tuple[str, str]] = []

    def respond(self, request: Received) -> Answer:
        """Check the request as SearXNG does, and answer it."""
        asked = request.query
        if request.path != "/search":
            return 404, self.describe_error(404, "not found")
        if asked.get("format") not in self.formats:
            return 403, self.describe_error(403, "Forbidden")
        if (flaw := _find_flaw(asked)) is not None:
            return 400, self.describe_error(400, flaw)
        rows = [
            {"engine": "brave", "engines": ["brave"], "score": 1.0 / rank, **page}
            if isinstance(page, dict)
            else page
            for rank, page in enumerate(self.pages, 1)
        ]
        return 200, {
            "query": asked["q"],
            "number_of_results": 0,
            "results": rows,
            "answers": [],
            "corrections": [],
            "infoboxes": [],
            "suggestions": [],
            "unresponsive_engines": [list(engine) for engine in self.silent],
        }

    def describe_error(self, status: int, message: str) -> dict[str, str]:
        """SearXNG's error in JSON; a 403 is a page of Flask in truth, without JSON."""
        return {"error": message}


def _find_flaw(asked: dict[str, str]) -> str | None:
    """What SearXNG would refuse or ignore in a request, or None."""
    if unknown := sorted(asked.keys() - _PARAMETERS):
        return f"unknown parameter {unknown[0]}"
    if not asked.get("q"):
        return "No query"
    for name, known in (("categories", CATEGORIES), ("engines", ENGINES)):
        if name in asked and not set(asked[name].split(",")) <= known:
            return f"unknown {name} {asked[name]}"
    if asked.get("time_range", "day") not in _RANGES:
        return "Invalid value for parameter time_range"
    if asked.get("safesearch", "0") not in ("0", "1", "2"):
        return "Invalid value for parameter safesearch"
    return None
