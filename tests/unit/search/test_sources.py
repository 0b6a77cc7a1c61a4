from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import (
    AccessDenied,
    DataEmpty,
    DataNotFound,
    RecipeKeyError,
    RecipeValueError,
    SourceError,
)
from rsearch_cli.recipe.schema import SearchConfig, SourceConfig
from rsearch_cli.search.postings_writer import PostingsWriter
from rsearch_cli.search.sources import SearchRequest, open_sources
from rsearch_cli.types import Passage

pytestmark = pytest.mark.usefixtures("messages_on_stderr")


def test_sources_open_under_their_names_from_one_index(
    corpus: list[Passage], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = []
    finish = PostingsWriter.finish

    def record(self: PostingsWriter) -> None:
        builds.append(self)
        finish(self)

    monkeypatch.setattr(PostingsWriter, "finish", record)
    reads = []

    def give() -> list[Passage]:
        reads.append("read")
        return corpus

    sources = open_sources(SearchConfig(), give)
    assert list(sources) == ["General", "News", "Academy"]
    assert len(reads) == len(builds) == 1
    assert len(list((cache_folder / "indexes").iterdir())) == 1
    assert len({source.fingerprint for source in sources.values()}) == 3
    assert {source.service for source in sources.values()} == {""}


def test_the_fingerprint_follows_the_corpus(corpus: list[Passage], tmp_path: Path) -> None:
    one = open_sources(SearchConfig(), lambda: corpus, tmp_path)["News"]
    other = open_sources(SearchConfig(), lambda: corpus[1:], tmp_path)["News"]
    assert one.fingerprint != other.fingerprint


def test_a_file_can_be_the_corpus(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"id": "1", "title": "Port Ellow", "text": "A town."}))

    def refuse() -> list[Passage]:
        raise AssertionError("no source asks for the questions' passages")

    search = SearchConfig(sources={"Own": SourceConfig(type="bm25", corpus=str(path))})
    assert list(open_sources(search, refuse)) == ["Own"]
    assert len(list((tmp_path / "cache" / "indexes").iterdir())) == 1


def test_a_missing_corpus_file_is_named(tmp_path: Path) -> None:
    search = SearchConfig(
        sources={"Own": SourceConfig(type="bm25", corpus=str(tmp_path / "no.jsonl"))}
    )
    with pytest.raises(DataNotFound, match=r"no\.jsonl does not exist"):
        open_sources(search, list)


def test_questions_without_passages_are_no_corpus() -> None:
    with pytest.raises(DataEmpty, match="the question set brings no passages along; set search"):
        open_sources(SearchConfig(), list)


def test_a_source_without_passages_is_said(
    corpus: list[Passage], capsys: pytest.CaptureFixture[str]
) -> None:
    open_sources(SearchConfig(), lambda: [p for p in corpus if p.source == "News"])
    assert capsys.readouterr().err.splitlines() == [
        "warning: search source General has no passage in corpus questions: it finds nothing",
        "warning: search source Academy has no passage in corpus questions: it finds nothing",
    ]


def test_a_corpus_that_answers_for_no_source_at_all_is_refused(corpus: list[Passage]) -> None:
    passages = [replace(passage, source="https://example.org") for passage in corpus]
    with pytest.raises(DataEmpty, match="no passage of corpus questions answers for a search sour"):
        open_sources(SearchConfig(), lambda: passages)


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("bm52", "did you mean 'bm25'?"),
        ("exxa", "did you mean 'exa'?"),
        (
            "google",
            "known kinds: bm25, dense, exa, http, hybrid, searxng, serper, tavily, wikipedia",
        ),
    ],
)
def test_an_unknown_kind_names_the_nearest(kind: str, hint: str) -> None:
    search = SearchConfig(sources={"News": SourceConfig(type=kind, corpus="questions")})
    with pytest.raises(RecipeValueError) as caught:
        open_sources(search, list)
    assert str(caught.value) == (
        f"search.sources.News.type: there is no source kind {kind!r}; {hint}"
    )


def test_bm25_has_no_options() -> None:
    search = SearchConfig(sources={"News": SourceConfig(options={"k1": 1.2})})
    with pytest.raises(RecipeKeyError) as caught:
        open_sources(search, list)
    assert str(caught.value) == (
        "search.sources.News.options: a source of type bm25 has none, got k1"
    )


# A whole package of someone else's, as it lies in site-packages.
LIBRARY = """
import asyncio
import json
from pathlib import Path

from rsearch_cli.errors import AccessDenied
from rsearch_cli.search.sources import SearchSource
from rsearch_cli.types import Passage


class LibrarySource(SearchSource):
    service = "library"
    cache_days = 7.0

    def __init__(self, shelf):
        self.shelf = shelf
        self.fingerprint = f"library/1/{shelf}"

    def check(self):
        if self.shelf == "closed":
            raise AccessDenied("the shelf is closed")

    async def search(self, request):
        return [Passage("1", self.shelf, request.query)]


class NoSource:
    fingerprint = "odd/1"


def open_odd(configs, corpus, index_dir):
    return {name: NoSource() for name in configs}


def open_library(configs, corpus, index_dir):
    return {name: LibrarySource(config.options["shelf"]) for name, config in configs.items()}
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the package `my-library`, with the source kinds `library` and `torn`."""
    site = tmp_path / "site"
    info = site / "my_library-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_library.py").write_text(LIBRARY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-library\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rsearch.sources]\nlibrary = my_library:open_library\ntorn = my_library:open_nothing\n"
        "odd = my_library:open_odd\n"
        "bm25 = my_library:open_library\n"
    )
    monkeypatch.syspath_prepend(site)
    return site


def shelf(name: str, kind: str = "library") -> SearchConfig:
    return SearchConfig(sources={"Books": SourceConfig(type=kind, options={"shelf": name})})


def test_another_package_adds_a_kind(library: Path) -> None:
    source = open_sources(shelf("upper"), list)["Books"]
    assert (source.fingerprint, source.service) == ("library/1/upper", "library")
    (passage,) = asyncio.run(source.search(SearchRequest("glass")))
    assert (passage.title, passage.text) == ("upper", "glass")


def test_a_source_is_checked_unless_nothing_may_be_sent(library: Path) -> None:
    with pytest.raises(AccessDenied, match="the shelf is closed"):
        open_sources(shelf("closed"), list)
    assert list(open_sources(shelf("closed"), list, offline=True)) == ["Books"]


def test_kinds_of_other_packages_are_suggested_too(library: Path) -> None:
    with pytest.raises(RecipeValueError, match="did you mean 'library'"):
        open_sources(shelf("upper", "libary"), list)


def test_what_is_no_source_is_refused(library: Path) -> None:
    with pytest.raises(SourceError, match="NoSource, which is not a SearchSource"):
        open_sources(shelf("upper", "odd"), list)


def test_our_own_kinds_cannot_be_replaced(library: Path, corpus: list[Passage]) -> None:
    sources = open_sources(SearchConfig(), lambda: corpus)
    assert sources["General"].fingerprint.startswith("bm25/")


def test_a_kind_that_cannot_be_loaded_names_its_package(library: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_sources(shelf("upper", "torn"), list)
    assert str(caught.value).startswith(
        "source kind 'torn' of the package my-library cannot be loaded from "
        "my_library:open_nothing ("
    )
