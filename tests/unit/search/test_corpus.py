from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound
from rsearch_cli.search.corpus import hash_corpus, read_corpus
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
        (b"[" * 100_000, " or below: nested too deeply"),
        (b"[1, 2]", ": [1, 2] is no object; expected {"),
        (b'{"id": "2", "text": "x"}', " (id \"2\"): 'title' is missing; expected {"),
        (b'{"id": 2, "title": "", "text": "x"}', " (id 2): 'id' is 2, not a string"),
        (b'{"id": "2", "title": null, "text": "x"}', " (id \"2\"): 'title' is null, not a string"),
        (b'{"id": "", "title": "", "text": "x"}', " (id \"\"): 'id' is empty"),
        (
            b'{"id": "2", "title": " ", "text": ""}',
            " (id \"2\"): 'title' and 'text' are both empty",
        ),
        (
            b'{"id": "2", "title": "", "text": "x", "sorce": "News"}',
            ' (id "2"): unknown field "sorce"; a passage has id, title, text, source',
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
    with pytest.raises(DataNotFound, match=r"nowhere\.jsonl does not exist; set search\.sources"):
        read_corpus(tmp_path / "nowhere.jsonl")


def test_a_folder_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="cannot be read: Is a directory"):
        read_corpus(tmp_path)


def test_a_file_without_passages_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataEmpty, match=r"corpus\.jsonl holds no passage; write one a line"):
        read_corpus(write(tmp_path, "\n \n"))


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
