from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound
from rsearch_cli.search.corpus import hash_corpus, hash_file, read_corpus, stream_corpus
from rsearch_cli.types import Passage

GOOD = '{"id": "1", "title": "Port Ellow", "text": "A town."}'


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "corpus.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_passages_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"\ufeff{GOOD}\r\n\n"
        '{"id": "0", "title": "", "text": "zwölf \\u2028 𝄞", "source": "News"}\n',
    )
    assert read_corpus(path) == [
        Passage("1", "Port Ellow", "A town."),
        Passage("0", "", "zwölf \u2028 𝄞", "News"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": "2", ', ": not JSON (Expecting property name"),
        (b'{"id": "\xff"}', ": not UTF-8 (byte 0xff); save the file as UTF-8"),
        (b"[" * 100_000, ": not readable (maximum recursion"),
        (b"[1, 2]", ": [1, 2] is not an object; expected {"),
        (b'{"id": "2", "title": 3, "text": "x"}', " (id \"2\"): 'title' is 3, not a string"),
        (b'{"id": "2", "text": "x", "source": 1}', " (id \"2\"): 'source' is 1, not a string"),
        (b'{"id": [2], "text": "x"}', ": 'id' is [2]; an id is a text or a whole number"),
        (b'{"id": "", "title": "", "text": "x"}', ' (id ""): \'id\' is ""; an id is a text or'),
        (
            b'{"id": "2", "title": " ", "text": ""}',
            ' (id "2"): there is no text, its fields are id, title, text; expected {"id"',
        ),
        (
            b'{"id": "2", "title": "Dune", "chunks": [{"text": "A novel."}]}',
            ' (id "2"): there is no text, its fields are id, title, chunks; expected {"id"',
        ),
        (
            b'{"id": "2", "question": "Who?", "answer": "x"}',
            ' (id "2"): there is no text, its fields are id, question, answer; questions go to '
            "--data-path",
        ),
        (
            b'{"id": "2", "title": "", "text": "x", "sorce": "News"}',
            ' (id "2"): unknown field "sorce"; did you mean \'source\'?',
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    path = write(tmp_path, GOOD.encode() + b"\n\n" + line + b"\n")
    with pytest.raises(DataMalformed) as caught:
        read_corpus(path)
    assert str(caught.value).startswith(f"corpus {path}, line 3{problem}")
    assert "\n" not in str(caught.value)


def test_duplicate_ids_are_refused_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, f"{GOOD}\n\n{GOOD}\n")
    with pytest.raises(
        DataMalformed, match=r'line 3 \(id "1"\): this id is already that of line 1'
    ):
        read_corpus(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"nowhere\.jsonl does not exist; name a file"):
        read_corpus(tmp_path / "nowhere.jsonl")


def test_a_folder_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="is a folder; name one of the files in it"):
        read_corpus(tmp_path)


def test_a_file_without_passages_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataEmpty, match=r"corpus\.jsonl holds no passage; write one a line"):
        read_corpus(write(tmp_path, "\n \n"))


DUNE = Passage("0", "Dune", "A novel.\nBy Herbert.")


@pytest.mark.parametrize(
    "row",
    [
        {"id": 0, "title": "Dune", "text": "A novel.\nBy Herbert."},
        {"_id": "0", "title": "Dune", "text": "A novel.\nBy Herbert.", "metadata": {}},
        {"id": "0", "contents": '"Dune"\nA novel.\nBy Herbert.'},
        {"docid": "0", "title": "Dune", "contents": '"Dune"\nA novel.\nBy Herbert.'},
        {"_index": "w", "_id": "0", "_source": {"title": "Dune", "text": "A novel.\nBy Herbert."}},
        {"id": 0, "page_content": "A novel.\nBy Herbert.", "metadata": {"title": "Dune"}},
        {"id": "0", "Title": "Dune", "passage": "A novel.\nBy Herbert.", "source": None},
    ],
)
def test_a_passage_is_read_from_all_names_of_its_fields(row: object, tmp_path: Path) -> None:
    assert read_corpus(write(tmp_path, json.dumps(row))) == [DUNE]


def test_only_a_quoted_first_line_is_a_title(tmp_path: Path) -> None:
    rows = [{"contents": "Dune\nA novel."}, {"text": 'He said "no"\nand left.'}]
    assert read_corpus(write(tmp_path, "\n".join(map(json.dumps, rows)))) == [
        Passage("line-1", "", "Dune\nA novel."),
        Passage("line-2", "", 'He said "no"\nand left.'),
    ]


def test_paragraphs_of_a_list_are_one_text(tmp_path: Path) -> None:
    row = {"_id": "0", "wikipedia_title": "Dune", "text": ["A novel. ", "By Herbert."]}
    assert read_corpus(write(tmp_path, json.dumps(row))) == [
        Passage("0", "Dune", "A novel. By Herbert.")
    ]


def test_a_table_of_passages_is_a_corpus(tmp_path: Path) -> None:
    path = tmp_path / "psgs.tsv"
    path.write_text('id\ttext\ttitle\n0\t"A ""novel""\nby Herbert."\tDune\n1\tA star.\tRigel\n')
    assert read_corpus(path) == [
        Passage("0", "Dune", 'A "novel"\nby Herbert.'), Passage("1", "Rigel", "A star."),
    ]  # fmt: skip


def test_a_parquet_file_and_a_compressed_one_are_corpora(tmp_path: Path) -> None:
    from rsearch_cli.questions.parquet import write_parquet

    rows = [{"id": n, "title": f"T{n}", "text": "x"} for n in range(3)]
    write_parquet(rows, tmp_path / "c.parquet")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    for name in ("c.parquet", "c.jsonl.gz"):
        assert [p.id for p in read_corpus(tmp_path / name)] == ["0", "1", "2"]


def test_a_corpus_is_read_no_further_than_it_is_asked(tmp_path: Path) -> None:
    passages = stream_corpus(write(tmp_path, f"{GOOD}\n" + '{"id": "2", '))
    assert next(passages).id == "1"
    with pytest.raises(DataMalformed, match=r"line 2: not JSON"):
        next(passages)


def test_the_hash_follows_the_content(corpus: list[Passage]) -> None:
    first = corpus[0]
    original = hash_corpus(corpus)
    assert hash_corpus([replace(p, score=2.5) for p in corpus]) == original
    assert hash_corpus(corpus[::-1]) != original
    for changed in (
        replace(first, id="x"),
        replace(first, text="x"),
        replace(first, source="x"),
        # The same characters, cut differently between the fields.
        replace(first, title=first.title + first.text[0], text=first.text[1:]),
    ):
        assert hash_corpus([changed, *corpus[1:]]) != original


def test_the_hash_takes_lone_surrogates(tmp_path: Path) -> None:
    row = {"id": "1", "title": "", "text": "\ud800"}
    (passage,) = read_corpus(write(tmp_path, json.dumps(row)))
    assert len(hash_corpus([passage])) == 64


LONG = "x" * 2000


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("c.jsonl", f'{GOOD}\n{{"id": "2", "text": "{LONG}"}}\n', "line 2"),
        ("c.jsonl", f'{{"id": "2", "text": "{LONG}"}}\n{GOOD}\n', "line 1"),
        ("c.jsonl", f'{{"id": "2", "text": "{LONG}"}}', "line 1"),
        ("c.jsonl", LONG, "line 1"),
        ("c.jsonl", " " * 2000, "line 1"),
        ("c.jsonl", f'[{{"id": "2", "text": "{LONG * 5}"}}]', "line 1"),
        ("c.jsonl", "[\n" + "1,\n" * 4000, "its only JSON value"),
        ("c.tsv", f"id\ttext\n1\t{LONG}\n", "line 2"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_row_as_long_as_no_passage_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch, name: str, content: str, place: str, compressed: bool
) -> None:
    monkeypatch.setattr("rsearch_cli.questions.formats.LONGEST_LINE", 1000)
    monkeypatch.setattr("rsearch_cli.questions.formats._LONGEST_DOCUMENT", 8000)
    path = tmp_path / (f"{name}.gz" if compressed else name)
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    with pytest.raises(DataMalformed) as caught:
        read_corpus(path)
    assert f"corpus {path}, {place}: longer than" in str(caught.value)


def test_a_cell_that_is_not_closed_is_read_no_further_than_a_row(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("rsearch_cli.questions.formats.LONGEST_LINE", 1000)
    path = tmp_path / "c.tsv"
    path.write_text('id\ttext\n1\tx\n2\t"open\n' + "3\tmore\n" * 1000)
    with pytest.raises(DataMalformed, match=r"line 3: not a table \(field larger than field limit"):
        read_corpus(path)


def test_a_pipe_is_no_corpus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataNotFound, match="is a pipe or a device, which cannot be read twice"):
        hash_file(tmp_path / "pipe.jsonl")
