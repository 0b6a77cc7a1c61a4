"""A local retriever that speaks the `/retrieve` protocol of Search-R1."""

from __future__ import annotations

from typing import Any

from local_http import Answer, LocalServer, Received

DOCUMENT = {"id": "17", "contents": '"Port Ellow"\nA harbour town.'}


class Retriever(LocalServer):
    """Search-R1's retriever: lists of documents, with scores if they are asked for."""

    result: Any = None

    def respond(self, request: Received) -> Answer:
        assert (request.method, request.path) == ("POST", "/retrieve")
        rows = [DOCUMENT] * request.body["topk"]
        if request.body["return_scores"]:
            rows = [{"document": row, "score": 0.5} for row in rows]
        given = [rows for _ in request.body["queries"]]
        return 200, {"result": given if self.result is None else self.result}

    def describe_error(self, status: int, message: str) -> dict[str, str]:
        return {"detail": message}
