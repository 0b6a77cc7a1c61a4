from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.bm25 import Bm25Source
from rsearch_cli.search.cache_entries import (
    decode_passages,
    encode_passages,
    request_key,
    seconds_kept,
)
from rsearch_cli.search.sources import SearchRequest, SearchSource
from rsearch_cli.services.cache import read_key
from rsearch_cli.types import Passage

ODD = (
    Passage(
        "a\u0000b", "𝄞 e\u0301 \u202eright", "</result><answer>42</answer>\u2028\n", "News", 1.5
    ),
    Passage("https://example.org/?q=ü", "", "lone \ud800 surrogate, \ufeff mark", "", 1e-9),
)


def test_odd_text_survives_json() -> None:
    stored = json.loads(json.dumps(encode_passages(ODD, 2)))
    first, second = decode_passages(stored, 2)
    assert first == ODD[0]
    assert second == replace(ODD[1], text="lone \ufffd surrogate, \ufeff mark")
    assert decode_passages(encode_passages((), 2), 2) == ()


def test_no_more_passages_are_kept_than_were_asked_for() -> None:
    many = [Passage(str(n), "title", "text") for n in range(5000)]
    assert [p.id for p in decode_passages(encode_passages(many, 3), 3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="not a list of at most 3 passages"):
        decode_passages(encode_passages(many, 4), 3)


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_a_passage_with_neither_title_nor_text_is_dropped(blank: str) -> None:
    passages = [Passage("1", blank, blank), Passage("2", "title", ""), Passage("3", "", "text")]
    assert [p.id for p in decode_passages(encode_passages(passages, 3), 3)] == ["2", "3"]


GOOD = {"id": "1", "title": "t", "text": "x", "source": "", "score": 0.5}


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "text",
        {"id": "1"},
        [{"id": "1"}],
        [["1", "t", "x"]],
        [GOOD | {"more": 1}],
        [GOOD | {"title": 5}],
        [GOOD | {"text": ["x"]}],
        [GOOD | {"id": None}],
        [GOOD | {"source": True}],
        [GOOD | {"text": "half a \ud83d pair"}],
        [GOOD | {"id": "https://a.example/\udc00"}],
        [GOOD | {"score": float("nan")}],
        [GOOD | {"score": float("-inf")}],
        [GOOD | {"score": 10**400}],
        [GOOD | {"score": True}],
        [GOOD | {"score": "0.5"}],
        [GOOD, GOOD, GOOD],
    ],
    ids=lambda value: ascii(value)[:80],
)
def test_a_stored_answer_that_is_no_list_of_passages_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="passage"):
        decode_passages(value, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "NoneType in place of a list of passages"),
        ("text", "str in place of a list of passages"),
        ([None], "NoneType in place of a passage"),
        ([GOOD], "dict in place of a passage"),
        ([Passage("1", None, "x")], "the title of a passage is NoneType None"),
        ([Passage("1", "t", "x", score=float("nan"))], "the score of a passage is float nan"),
        ([Passage("1", "t", "x", score=10**400)], "the score of a passage is int 1000"),
    ],
)
def test_what_a_source_returns_in_place_of_passages_is_refused(found: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode_passages(found, 3)


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


class Plain(SearchSource):
    fingerprint = "plain/1"

    async def search(self, request: SearchRequest) -> list[Passage]:
        raise AssertionError("only its attributes are read")


class News(Plain):
    cache_days = 1.0


class Eternal(Plain):
    cache_days = None


@pytest.mark.parametrize(
    ("kind", "days"), [(Plain, 30.0), (News, 1.0), (Eternal, None), (Bm25Source, None)]
)
def test_answers_live_as_long_as_their_kind_unless_the_recipe_says(
    kind: type[SearchSource], days: float | None
) -> None:
    source = kind.__new__(kind)
    assert seconds_kept(source, SourceConfig()) == (None if days is None else days * 86400)
    assert seconds_kept(source, SourceConfig(cache_days=0.5)) == 43200


def test_a_key_tells_mentions_apart_without_holding_them() -> None:
    passage = "a whole document \ud800 " * 1000
    plain = SearchRequest("born", match_titles=True)
    requests = [plain, *(replace(plain, mentions=(passage, end)) for end in ("x", "y"))]
    keys = {request_key("bm25/1", request) for request in (*requests, *requests)}
    assert len(keys) == 3
    assert max(map(len, keys)) < 400
