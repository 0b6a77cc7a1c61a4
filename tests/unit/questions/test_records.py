from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsearch_cli.errors import DataError
from rsearch_cli.questions.records import WRITERS, write_corpus, write_rows
from rsearch_cli.questions.rows import read_rows
from rsearch_cli.search.corpus import read_corpus
from rsearch_cli.types import Passage

ROWS = [{"id": "1", "question": "Wer?\u2028", "answer": ["𝄞", "b"]}, {"id": "2", "answer": "c"}]


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_is_read_back(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"out{ending}"
    write_rows(ROWS, path)
    assert [row.fields for row in read_rows(path)] == ROWS
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_json_is_one_list_with_a_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_rows(ROWS, path)
    assert json.loads(path.read_text(encoding="utf-8")) == ROWS
    assert path.read_bytes().count(b"\n") == 4


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with pytest.raises(DataError) as caught:
        write_rows(ROWS, path)
    assert str(caught.value) == (f"{path}: the file name must end in .json, .jsonl, .parquet")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out.json"
    with pytest.raises(DataError, match=r"out\.json cannot be written: (File exists|Not a dir)"):
        write_rows(ROWS, path)


def test_what_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    def passages() -> Iterator[Passage]:
        yield Passage("1", "A", "a")
        raise KeyboardInterrupt

    path = tmp_path / "corpus.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_corpus(passages(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_corpus_is_read_back(tmp_path: Path) -> None:
    passages = [Passage("1", "Ä", "\u2028 a"), Passage("2", "", "b", "News")]
    assert write_corpus(iter(passages), tmp_path / "corpus.jsonl") == 2
    assert read_corpus(tmp_path / "corpus.jsonl") == passages
