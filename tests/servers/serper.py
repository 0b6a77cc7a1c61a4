"""A local server of Serper's `/search`, `/news` and `/scholar`, from its public description.

It refuses fields that it does not know, so that an outdated name fails a test.
"""

from __future__ import annotations

from typing import Any

from local_http import Answer, LocalServer, Received
from web_results import make_results

API_KEY = "serper-key-for-tests-only"
USD_PER_CREDIT = 0.001

_TYPES: dict[str, type] = {"q": str, "num": int, "gl": str, "hl": str, "tbs": str}


class SerperServer(LocalServer):
    """Serper's endpoints; see `LocalServer` for latency, faults and counts.

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
        """Check the request as Serper does, and answer it."""
        # The gateway routes nothing without a key.
        if request.headers.get("x-api-key") != self._api_key:
            return 403, self.describe_error(403, "Unauthorized.")
        if self.refuse is not None:
            return self.refuse[0], self.describe_error(*self.refuse)
        endpoint = request.path.removeprefix("/")
        if request.method != "POST" or endpoint not in ("search", "news", "scholar"):
            return 404, self.describe_error(404, "Not Found")
        body = request.body
        if not isinstance(body, dict) or not body.get("q"):
            return 400, self.describe_error(400, "Missing query parameter")
        for name, value in body.items():
            if not isinstance(value, _TYPES.get(name, ())):
                return 400, self.describe_error(400, f"Invalid parameter {name}")
        wanted = 10 if endpoint == "scholar" else body.get("num", 10)
        credits = 1 if wanted <= 10 else 2
        self.usd += credits * USD_PER_CREDIT
        rows = [
            {"title": title, "link": url, "snippet": text[:160], "position": position}
            for position, (url, title, text) in enumerate(
                make_results(body["q"], endpoint, wanted), start=1
            )
        ]
        if endpoint == "scholar":
            about = {"publicationInfo": "T Korrin - Port Ellow Press, 2017", "year": 2017}
            rows = [row | about for row in rows]
        name = "news" if endpoint == "news" else "organic"
        return 200, {"searchParameters": body | {"type": endpoint}, name: rows, "credits": credits}

    def describe_error(self, status: int, message: str) -> dict[str, Any]:
        """Serper's error body."""
        return {"message": message, "statusCode": status}
