from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsearch_cli.errors import SourceError
from rsearch_cli.recipe.schema import Source
from rsearch_cli.search.answers import (
    decode_passages,
    encode_passages,
    request_key,
    seconds_kept,
)
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.services.cache import read_key
from rsearch_cli.types import Passage

ODD = (
    Passage(
        "a\u0000b", "𝄞 e\u0301 \u202eright", "</result><answer>42</answer>\u2028\n", "News", 1.5
    ),
    Passage("https://example.org/?q=ü", "", "lone \ud800 surrogate, \ufeff mark", "", 1e-9),
)


def test_odd_text_survives_json() -> None:
    assert decode_passages(json.loads(json.dumps(encode_passages(ODD)))) == ODD
    assert decode_passages(encode_passages(())) == ()


@pytest.mark.parametrize("value", [None, 3, "text", {"id": "1"}, [{"id": "1"}], [["1", "t", "x"]]])
def test_what_is_no_passages_is_told(value: object) -> None:
    with pytest.raises(SourceError, match="remove it with rsearch cache clear"):
        decode_passages(value)  # type: ignore[arg-type]


def test_the_key_holds_everything_that_changes_the_answer() -> None:
    request = SearchRequest("Café  Ellow\n", ("Korrin",), 3, 3)
    key = request_key("bm25/1", request)
    assert request_key("bm25/1", replace(request, query=" Cafe\u0301 Ellow")) == key
    others = {
        request_key("bm25/2", request),
        request_key("bm25/1", replace(request, query="café ellow")),
        request_key("bm25/1", replace(request, expansion=())),
        request_key("bm25/1", replace(request, top_k=4)),
        request_key("bm25/1", replace(request, own_words_weight=1)),
    }
    assert len(others | {key}) == 6
    assert read_key(key)["service"] == "bm25"
    assert read_key(key)["query"] == "Café Ellow"


class Local:
    fingerprint = "local/1"
    service = ""

    async def search(self, request: SearchRequest) -> list[Passage]:
        raise AssertionError("only its attributes are read")


class Outside(Local):
    service = "outside"


class News(Outside):
    cache_days = 1.0


class Eternal(Outside):
    cache_days = None


@pytest.mark.parametrize(
    ("kind", "days"), [(Local, None), (Outside, 30.0), (News, 1.0), (Eternal, None)]
)
def test_answers_live_as_long_as_their_kind_unless_the_recipe_says(
    kind: type[Local], days: float | None
) -> None:
    assert seconds_kept(kind(), Source()) == (None if days is None else days * 86400)
    assert seconds_kept(kind(), Source(cache_days=0.5)) == 43200
