from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bm25s
import pytest

from rsearch_cli.errors import DataEmpty, DataNotFound, RecipeValueError
from rsearch_cli.recipe.schema import Search, Source
from rsearch_cli.search.sources import open_sources
from rsearch_cli.types import Passage


def test_sources_open_under_their_names_from_one_index(
    corpus: list[Passage], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = []
    index = bm25s.BM25.index

    def record(self: Any, *args: Any, **options: Any) -> None:
        builds.append(self)
        index(self, *args, **options)

    monkeypatch.setattr(bm25s.BM25, "index", record)
    reads = []

    def give() -> list[Passage]:
        reads.append("read")
        return corpus

    sources = open_sources(Search(), give)
    assert list(sources) == ["General", "News", "Academy"]
    assert len(reads) == len(builds) == 1
    assert len(list((cache_folder / "indexes").iterdir())) == 1
    assert len({source.fingerprint for source in sources.values()}) == 3


def test_the_fingerprint_follows_the_corpus(corpus: list[Passage], tmp_path: Path) -> None:
    one = open_sources(Search(), lambda: corpus, tmp_path)["News"]
    other = open_sources(Search(), lambda: corpus[1:], tmp_path)["News"]
    assert one.fingerprint != other.fingerprint


def test_a_file_can_be_the_corpus(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"id": "1", "title": "Port Ellow", "text": "A town."}))

    def refuse() -> list[Passage]:
        raise AssertionError("no source asks for the questions' passages")

    search = Search(sources={"Own": Source(type="bm25", corpus=str(path))})
    assert list(open_sources(search, refuse)) == ["Own"]
    assert len(list((tmp_path / "cache" / "indexes").iterdir())) == 1


def test_a_missing_corpus_file_is_named(tmp_path: Path) -> None:
    search = Search(sources={"Own": Source(type="bm25", corpus=str(tmp_path / "no.jsonl"))})
    with pytest.raises(DataNotFound, match=r"no\.jsonl does not exist"):
        open_sources(search, list)


def test_questions_without_passages_are_no_corpus() -> None:
    with pytest.raises(DataEmpty, match="the question set brings no passages along; set search"):
        open_sources(Search(), list)


def test_a_source_without_passages_is_said(
    corpus: list[Passage], capsys: pytest.CaptureFixture[str]
) -> None:
    open_sources(Search(), lambda: [p for p in corpus if p.source == "News"])
    assert capsys.readouterr().err.splitlines() == [
        "search source General has no passage in corpus questions: it finds nothing",
        "search source Academy has no passage in corpus questions: it finds nothing",
    ]


@pytest.mark.parametrize(
    ("kind", "hint"), [("bm52", "did you mean 'bm25'?"), ("web", "known kinds: bm25")]
)
def test_an_unknown_kind_names_the_nearest(kind: str, hint: str) -> None:
    search = Search(sources={"News": Source(type=kind, corpus="questions")})
    with pytest.raises(RecipeValueError) as caught:
        open_sources(search, list)
    assert str(caught.value) == (
        f"search.sources.News.type: there is no source kind {kind!r}; {hint}"
    )
