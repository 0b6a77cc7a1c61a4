from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.search.cache import (
    SearchCache,
    cache_root,
    decode_passages,
    encode_passages,
    request_key,
)
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.types import Passage

ODD = (
    Passage(
        "a\u0000b", "𝄞 e\u0301 \u202eright", "</result><answer>42</answer>\u2028\n", "News", 1.5
    ),
    Passage("https://example.org/?q=ü", "", "lone \ud800 surrogate, \ufeff mark", "", 1e-9),
)


def test_the_root_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    assert cache_root() == cache_folder
    assert SearchCache().folder == cache_folder / "search"
    monkeypatch.delenv("RSEARCH_CACHE_DIR")
    assert cache_root().name == "rsearch"


def test_odd_text_survives_json() -> None:
    assert decode_passages(encode_passages(ODD)) == ODD


def test_answers_outlive_the_cache_object() -> None:
    with SearchCache() as cache:
        assert cache.get("k") is None
        cache.put("k", ODD)
        cache.put("none found", ())
        assert cache.get("k") == ODD
    with SearchCache() as cache:
        assert cache.get("k") == ODD
        assert cache.get("none found") == ()
        assert (cache.hits, cache.misses) == (2, 0)


def test_large_answers_survive() -> None:
    large = tuple(Passage(str(i), "ü" * 500, "x\ny" * 2000) for i in range(20))
    with SearchCache() as cache:
        cache.put("k", large)
        assert cache.get("k") == large


def test_values_on_disk_are_json_text() -> None:
    with SearchCache() as cache:
        cache.put(request_key("bm25", SearchRequest("Port Ellow")), ODD)
    with sqlite3.connect(cache.folder / "cache.db") as connection:
        ((key, value),) = connection.execute("SELECT key, value FROM Cache").fetchall()
    assert json.loads(key)["query"] == "Port Ellow"
    assert [row["id"] for row in json.loads(value)] == [p.id for p in ODD]


def test_nothing_is_opened_before_it_is_needed() -> None:
    cache = SearchCache()
    cache.close()
    assert not cache.folder.exists()


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


def test_a_damaged_cache_is_set_aside(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        cache = SearchCache()
        cache.folder.mkdir(parents=True, exist_ok=True)
        for old in cache.folder.iterdir():
            old.unlink()
        (cache.folder / "cache.db").write_bytes(b"no database at all " * 100)
        assert cache.get("k") is None
        aside = cache.folder.with_name(f"search.damaged-{number}")
        assert capsys.readouterr().err == (
            f"search cache {cache.folder} is damaged (file is not a database); "
            f"set aside as {aside}\n"
        )
        assert (aside / "cache.db").read_bytes().startswith(b"no database")
        cache.put("k", ODD)
        assert cache.get("k") == ODD
        cache.close()


def test_damage_met_while_storing_is_set_aside_too(capsys: pytest.CaptureFixture[str]) -> None:
    cache = SearchCache()
    cache.folder.mkdir(parents=True)
    (cache.folder / "cache.db").write_bytes(b"no database at all " * 100)
    cache.put("k", ODD)
    assert "set aside as" in capsys.readouterr().err
    cache.put("k", ODD)
    assert cache.get("k") == ODD
    cache.close()


def test_a_file_in_the_place_of_the_folder_is_set_aside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = SearchCache()
    cache.folder.parent.mkdir(parents=True)
    cache.folder.write_text("a file")
    cache.put("k", ODD)
    assert "set aside as" in capsys.readouterr().err
    cache.put("k", ODD)
    assert cache.get("k") == ODD
    cache.close()


def test_a_folder_that_cannot_be_used_costs_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file")
    cache = SearchCache(blocked / "search")
    cache.put("k", ODD)
    assert cache.get("k") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"search cache {blocked / 'search'} cannot be used (")
    assert line.endswith("going on without it")
    assert blocked.read_text() == "a file"


@pytest.mark.parametrize("value", ["{", "3", '[{"id": "1"}]', "null"])
def test_an_entry_that_cannot_be_read_is_a_miss(value: str) -> None:
    with SearchCache() as cache:
        cache.put("k", ODD)
    with sqlite3.connect(cache.folder / "cache.db") as connection:
        connection.execute("UPDATE Cache SET value = ?", (value,))
    with SearchCache() as cache:
        assert cache.get("k") is None
        assert (cache.hits, cache.misses) == (0, 1)
        cache.put("k", ODD)
        assert cache.get("k") == ODD
