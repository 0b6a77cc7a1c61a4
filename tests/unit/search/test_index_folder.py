"""Corpora of any size: stored passages, and the indexes over them."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound, SourceError
from rsearch_cli.recipe.schema import SourceConfig
from rsearch_cli.search.bm25 import (
    Bm25Source,
    corpus_key,
    open_bm25,
    open_corpus,
    open_index,
    prepare_corpus,
)
from rsearch_cli.search.index_folder import StoredPassages, is_free, is_whole
from rsearch_cli.search.postings_writer import PostingsWriter
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.types import Passage

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

QUERIES = ("Who founded the lamp maker Brindle Works?", "mayor of Port Ellow", "zeppelin", "glass")


def write(folder: Path, passages: list[Passage]) -> Path:
    path = folder / "corpus.jsonl"
    rows = ({"id": p.id, "title": p.title, "text": p.text, "source": p.source} for p in passages)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def find(source: Bm25Source, query: str) -> list[Passage]:
    return asyncio.run(source.search(SearchRequest(query, ("Port Ellow",))))


def test_a_file_is_searched_like_its_passages_in_memory(
    corpus: list[Passage], tmp_path: Path
) -> None:
    stored = open_corpus(write(tmp_path, corpus), tmp_path / "indexes")
    held = open_index(corpus, tmp_path / "indexes")
    assert list(stored.passages) == corpus
    for name in ("General", "News", "Academy"):
        on_disk, in_memory = Bm25Source(name, stored), Bm25Source(name, held)
        assert on_disk.size == in_memory.size
        for query in QUERIES:
            assert find(on_disk, query) == find(in_memory, query)


def test_the_arrays_are_mapped_not_read(corpus: list[Passage], tmp_path: Path) -> None:
    postings = open_corpus(write(tmp_path, corpus), tmp_path / "indexes").postings
    for array in (postings._begins, postings._passages, postings._scores):
        assert isinstance(array.base, np.memmap)


def test_odd_passages_are_stored_as_they_are(tmp_path: Path) -> None:
    odd = [
        Passage("a\u0000", "𝄞 e\u0301", "two\nlines \u2028 \ud800"),
        Passage("b", "", "x", "News"),
        Passage("c", "y", ""),
    ]
    prepare_corpus(write(tmp_path, odd), tmp_path / "index")
    stored = StoredPassages(tmp_path / "index")
    assert (list(stored), stored[1:]) == (odd, odd[1:])
    assert stored.read_sources() == [("", 1), ("News", 1), ("", 1)]


def test_a_prepared_corpus_is_not_built_again(
    corpus: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, corpus)
    prepare_corpus(path, tmp_path / "indexes" / corpus_key(path))

    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("the index was built again")

    monkeypatch.setattr(PostingsWriter, "finish", fail)
    configs = {"General": SourceConfig(corpus=str(path)), "News": SourceConfig(corpus=str(path))}
    opened = open_bm25(configs, list, tmp_path / "indexes")
    assert find(opened["News"], "storm")[0].title == "Storm at Port Ellow"
    assert opened["General"].fingerprint == f"bm25/{corpus_key(path)}/General"


def test_a_folder_stands_for_its_corpus(corpus: list[Passage], tmp_path: Path) -> None:
    path = write(tmp_path, corpus)
    key = corpus_key(path)
    prepare_corpus(path, tmp_path / "index")
    path.unlink()
    configs = {"General": SourceConfig(corpus=str(tmp_path / "index"))}
    opened = open_bm25(configs, list, tmp_path / "indexes")
    assert find(opened["General"], QUERIES[0])[0].title == "Brindle Works"
    assert opened["General"].fingerprint == f"bm25/{key}/General"


def test_an_index_of_an_older_version_is_made_again(
    corpus: list[Passage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = write(tmp_path, [*corpus, Passage("zh", "北京", "北京是中国的首都。")])
    with monkeypatch.context() as old:
        old.setattr("rsearch_cli.search.bm25.INDEX_VERSION", 1)
        old.setattr("rsearch_cli.search.index_folder.split_indexed", str.split)
        prepare_corpus(file, tmp_path / "old")
        open_corpus(file, tmp_path / "indexes")
    for corpus_path in (tmp_path / "old", file):
        source = Bm25Source("General", open_corpus(corpus_path, tmp_path / "indexes"))
        assert asyncio.run(source.search(SearchRequest("首都")))[0].id == "zh"
    told = capsys.readouterr().err
    assert told == (
        f"corpus {tmp_path / 'old'} was indexed by another version of rsearch; indexing it again\n"
    )


def test_a_changed_file_gets_an_index_of_its_own(corpus: list[Passage], tmp_path: Path) -> None:
    before = corpus_key(write(tmp_path, corpus))
    assert corpus_key(write(tmp_path, corpus[1:])) != before


def test_a_damaged_index_is_built_again(
    corpus: list[Passage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, corpus)
    index = open_corpus(path, tmp_path / "indexes")
    folder = tmp_path / "indexes" / index.key
    (folder / "passages.jsonl").write_text("{}")
    assert list(open_corpus(path, tmp_path / "indexes").passages) == corpus
    assert (
        capsys.readouterr().err == f"warning: BM25 index {folder} is damaged; building it again\n"
    )
    assert is_whole(folder)


@pytest.mark.parametrize("line", ['{"id": "1"}', "[" * 3000, "{", '"text"', "null"])
def test_a_passage_that_cannot_be_read_fails_its_search_and_says_where(
    corpus: list[Passage], tmp_path: Path, line: str
) -> None:
    folder = tmp_path / "prepared"
    prepare_corpus(write(tmp_path, corpus), folder, lambda count: None)
    passages = folder / "passages.jsonl"
    size = len(passages.read_bytes().split(b"\n")[0])
    rest = passages.read_bytes()[size:]
    passages.write_bytes(line[:size].ljust(size).encode() + rest)
    with pytest.raises(SourceError, match=r"passage 0 of the prepared corpus .* cannot be read"):
        StoredPassages(folder)[0]
    assert StoredPassages(folder)[1] == corpus[1]


def test_a_folder_that_is_no_whole_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataMalformed) as caught:
        open_corpus(tmp_path, tmp_path)
    assert str(caught.value) == (
        f"corpus {tmp_path} is a folder without a whole index; make it with: rsearch index "
        f"CORPUS.jsonl --output {tmp_path}"
    )


def test_a_folder_that_does_not_exist_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound) as caught:
        open_corpus(tmp_path / "my index", tmp_path)
    assert str(caught.value) == (
        f"corpus {tmp_path}/my index does not exist; name a file of passages, in a recipe as "
        "search.sources.<name>.corpus, or, for an index of one, make it with: rsearch index "
        "CORPUS.jsonl --output "
        f"'{tmp_path}/my index'"
    )


def test_a_cache_that_cannot_be_written_costs_one_line(
    corpus: list[Passage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    index = open_corpus(write(tmp_path, corpus), blocked)
    assert find(Bm25Source("News", index), "storm")[0].title == "Storm at Port Ellow"
    assert "cannot be kept (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        (None, DataNotFound, "does not exist; name a file of passages"),
        ("\n", DataEmpty, "holds no passage; write one a line, expected {"),
        ('{"id": "1", "title": "?", "text": "!"}', DataEmpty, "none of the 1 passages of the cor"),
        ('{"id": "1", "words": "a"}', DataMalformed, 'line 1 (id "1"): there is no text'),
    ],
)
def test_a_corpus_that_cannot_be_used_leaves_nothing(
    content: str | None, error: type[Exception], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "corpus.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error) as caught:
        open_corpus(path, tmp_path / "indexes")
    assert problem in str(caught.value)
    assert not (tmp_path / "indexes").exists() or not list((tmp_path / "indexes").iterdir())


def test_only_an_index_or_nothing_may_be_replaced(corpus: list[Passage], tmp_path: Path) -> None:
    path = write(tmp_path, corpus)
    assert is_free(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    assert is_free(tmp_path / "empty")
    assert not is_free(tmp_path) and not is_free(path)
    prepare_corpus(path, tmp_path / "new")
    assert is_free(tmp_path / "new")


def test_progress_counts_the_passages(corpus: list[Passage], tmp_path: Path) -> None:
    counts: list[int] = []
    prepare_corpus(write(tmp_path, corpus), tmp_path / "index", counts.append)
    assert counts == list(range(1, len(corpus) + 1))


_BUILD = """
import sys
import time
from pathlib import Path
from rsearch_cli.search.bm25 import open_corpus
print(len(open_corpus(Path(sys.argv[1]), Path(sys.argv[2])).passages))
"""


def test_killed_builds_leave_no_index_and_are_cleaned_up(tmp_path: Path) -> None:
    """Kill -9 at random moments of a build, of this corpus and of one that changed since."""
    rows = [Passage(str(n), f"Town {n}", f"harbour {n} " * 20) for n in range(8000)]
    indexes, chance = tmp_path / "indexes", random.Random()

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _BUILD, str(path), str(indexes)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    for passages in (rows[1:], rows):
        path = write(tmp_path, passages)
        killed = start()
        while not list(indexes.glob(".building-*/passages.jsonl")):
            assert killed.poll() is None
            time.sleep(0.005)
        time.sleep(chance.random() * 0.3)
        killed.kill()
        killed.communicate()
        assert is_whole(indexes / corpus_key(path)) is not False
    builders = [start(), start()]
    assert [builder.communicate()[0] for builder in builders] == ["8000\n", "8000\n"]
    built = {corpus_key(path)}
    built.add(open_corpus(write(tmp_path, rows[:5]), indexes).key)
    left = {entry.name for entry in indexes.iterdir()} - {corpus_key(write(tmp_path, rows[1:]))}
    assert left == built and all(is_whole(indexes / name) for name in built)
