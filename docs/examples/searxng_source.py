"""Source kind `searxng`: a SearXNG instance of your own, which needs no key."""

import httpx

from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.search.sources import SearchSource, opens, read_options
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.types import Passage


class Options(BaseConfig):
    url: str = "http://localhost:8888"
    language: str = "en"


class SearxngSource(SearchSource):
    service = "searxng"
    usd_per_search = 0.0

    def __init__(self, options):
        self.options = options
        self.fingerprint = f"searxng/v1/{options.url}/{options.language}"

    async def search(self, request):
        words = " ".join([request.query, *request.expansion])
        asked = {"q": words, "language": self.options.language, "format": "json"}
        try:
            async with httpx.AsyncClient() as client:
                reply = await client.get(f"{self.options.url}/search", params=asked)
            if reply.status_code == 403:
                raise PermanentFailure("SearXNG gives no JSON: add it to search.formats there")
            rows = reply.raise_for_status().json()["results"][: request.top_k]
            return [Passage(row["url"], row["title"], row.get("content", "")) for row in rows]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise TransientFailure(f"no answer from SearXNG ({error!r})") from error


@opens(SearxngSource)
def open_searxng(configs, corpus, index_dir):
    return {n: SearxngSource(read_options(Options, n, c)) for n, c in configs.items()}
