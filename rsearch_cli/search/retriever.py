r"""A retriever on another machine that speaks the `/retrieve` protocol of Search-R1 and SkyRL.

    POST {"queries": ["..."], "topk": 3, "return_scores": true}
    {"result": [[{"document": {"id": "1", "contents": "\"Title\"\ntext"}, "score": 0.7}]]}

`rsearch index --serve` speaks it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rsearch_cli.recipe.addresses import check_address
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.corpus import split_quoted_title
from rsearch_cli.search.json_client import JsonClient, JsonSource
from rsearch_cli.search.sources import SearchRequest, opens, read_options
from rsearch_cli.services.keys import check_key, read_key
from rsearch_cli.services.validation import is_finite
from rsearch_cli.types import Passage

RETRIEVE = "/retrieve"
KEY_VARIABLE = "RETRIEVER_API_KEY"
"""Environment variable of the bearer token that a retriever may want."""


class RetrieverOptions(BaseConfig):
    """Settings of a source of type `http`, under `search.sources.<name>.options`."""

    url: str
    """Address of the retriever; the path `/retrieve` is added if there is none."""

    timeout_seconds: float = Field(30.0, gt=0.0, le=600.0)
    """Longest wait for an answer."""

    @field_validator("url")
    @classmethod
    def _name_path(cls, value: str) -> str:
        has_path = urlsplit(check_address(value)).path.strip("/")
        return value if has_path else value.rstrip("/") + RETRIEVE


class RetrieverSource(JsonSource):
    """The passages that a retriever finds for a query together with the names of its parents.

    Args:
        options: The recipe's options.
    """

    service = "http"
    usd_per_search = 0.0

    def __init__(self, options: RetrieverOptions) -> None:
        super().__init__(JsonClient("the retriever", options.url, timeout=options.timeout_seconds))
        self.fingerprint = f"http/v1/{self._client.url}"

    def check(self) -> None:
        """Check the proxies and the key, if there is one; see `JsonClient.check`."""
        super().check()
        if key := read_key(KEY_VARIABLE):
            check_key(KEY_VARIABLE, key)

    def simplify(self, request: SearchRequest) -> SearchRequest:
        """Return the request as one text, which is all that the protocol carries."""
        return request.as_one_text()

    async def search(self, request: SearchRequest) -> list[Passage]:
        """Send one query; see `JsonClient.send`."""
        query = self.simplify(request).query
        body = {"queries": [query], "topk": request.top_k, "return_scores": True}
        key = read_key(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = await self._client.send("POST", body=body, headers=headers)
        try:
            (rows,) = answer["result"]
            return [_read_passage(row) for row in rows[: request.top_k]]
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self._client.malformed() from None


@opens(RetrieverSource)
def open_retrievers(
    configs: Mapping[str, SourceConfig],
    corpus: Callable[[], Iterable[Passage]],
    index_dir: Path | None,
) -> dict[str, RetrieverSource]:
    """Open the sources of type `http` of a recipe; corpus and index_dir are not used.

    Raises:
        RecipeKeyError: An option is unknown.
        RecipeValueError: The value of an option is invalid.
    """
    return {
        name: RetrieverSource(read_options(RetrieverOptions, name, config))
        for name, config in configs.items()
    }


def write_document(passage: Passage) -> dict[str, str]:
    """Return a passage as the protocol writes it."""
    contents = f'"{passage.title}"\n{passage.text}'
    return {"id": passage.id, "title": passage.title, "text": passage.text, "contents": contents}


def _read_passage(row: Mapping[str, Any]) -> Passage:
    """Read a document with or without a score.

    Raises:
        TypeError: A field has the wrong type.
    """
    document, score = row.get("document", row), row.get("score", 0.0)
    title, text = document.get("title") or "", document.get("text") or ""
    if not text:
        found = split_quoted_title(document["contents"])
        title, text = (title or found[0], found[1])
    name = document.get("id", document.get("docid", ""))
    name = str(name) if isinstance(name, int) else name
    if not all(isinstance(part, str) for part in (name, title, text)) or not is_finite(score):
        raise TypeError("not a document")
    return Passage(name or title, title, text, score=float(score))
