"""Source kind `crossref`: titles and abstracts of scholarly works, without a key."""

import re

import httpx

from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.search.sources import SearchSource, opens, read_options
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.types import Passage

TAG = re.compile("<[^>]*>")


class Options(BaseConfig):
    url: str = "https://api.crossref.org"


class CrossrefSource(SearchSource):
    service = "crossref"
    usd_per_search = 0.0

    def __init__(self, options):
        self.url = options.url
        self.fingerprint = f"crossref/v1/{options.url}"

    async def search(self, request):
        words = " ".join([request.query, *request.expansion])
        asked = {"query": words, "rows": request.top_k, "select": "URL,title,abstract"}
        try:
            async with httpx.AsyncClient() as client:
                reply = await client.get(f"{self.url}/works", params=asked)
            if reply.status_code == 400:
                raise PermanentFailure("Crossref does not accept the query")
            works = reply.raise_for_status().json()["message"]["items"]
            return [
                Passage(w["URL"], " ".join(w.get("title", [])), TAG.sub("", w.get("abstract", "")))
                for w in works
            ]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise TransientFailure(f"no answer from Crossref ({error!r})") from error


@opens(CrossrefSource)
def open_crossref(configs, corpus, index_dir):
    return {n: CrossrefSource(read_options(Options, n, c)) for n, c in configs.items()}
