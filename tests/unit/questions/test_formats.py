"""File formats of rows: read, or refused in one line with the location."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import DataMalformed, DataNotFound
from rsearch_cli.questions.rows import Row, read_rows

ROWS = [{"question": "Who?", "answer": "Ann"}, {"question": "Where?", "answer": "Rome"}]
ARTICLE = {
    "title": "Ann",
    "paragraphs": [
        {"context": "Ann is.", "qas": [{"id": "1", "question": "Who?"}, {"id": "2"}]},
        {"context": "Bo is.", "qas": [{"id": "3"}]},
    ],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def to_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def fields(path: Path) -> list[dict[str, Any]]:
    return [row.fields for row in read_rows(path)]


def refusal(path: Path, kind: type[Exception] = DataMalformed) -> str:
    with pytest.raises(kind) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsonl(rows: list[dict[str, Any]] = ROWS) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_is_read_whatever_it_is_called(compress: Any, write: Any) -> None:
    assert fields(write("q.jsonl", compress(jsonl().encode()))) == ROWS


def test_a_compressed_table_and_a_compressed_parquet_file_are_read(
    write: Any, tmp_path: Path
) -> None:
    from rsearch_cli.questions.parquet import write_parquet

    assert fields(write("q.csv.gz", gzip.compress(table(",").encode()))) == ROWS
    write_parquet(ROWS, tmp_path / "q.parquet")
    packed = gzip.compress((tmp_path / "q.parquet").read_bytes())
    assert fields(write("q.parquet.gz", packed)) == ROWS


def test_a_compressed_file_that_is_cut_off_is_named(write: Any) -> None:
    whole = gzip.compress(jsonl(ROWS * 500).encode())
    path = write("q.jsonl.gz", whole[: len(whole) // 2])
    assert refusal(path).startswith(f"{path} is damaged or truncated (")
    path = write("r.jsonl.gz", whole[:30] + b"xxxx" + whole[34:])
    assert refusal(path).startswith(f"{path} is damaged or truncated (")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04rest", "is a zip archive or a spreadsheet; unpack it, or save the sheet as"),
        (b"\x28\xb5\x2f\xfdrest", "is compressed by zstd; unpack it"),
        (b"\xff\xff\xff\xff\x10", "is an Arrow stream, as datasets saves it; write it with to_pa"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is a spreadsheet of Excel 97 to 2003; save the sheet"),
        (b"\x80\x04\x95\x10", "is a pickle; write its rows as JSONL"),
        ("question\tanswer\n".encode("utf-16"), "is UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer, not the file"),
        (b"<!DOCTYPE html>\n", "is a web page or XML; download the file itself"),
    ],
)
def test_an_unsupported_format_is_named(content: bytes, told: str, write: Any) -> None:
    assert told in refusal(write("q.jsonl", content))


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("q.csv", ","), ("q.CSV", ";"), ("q.csv", "\t"), ("q.csv", "|"), ("q.tsv", "\t")],
)
def test_a_table_is_read_by_its_header(name: str, delimiter: str, write: Any) -> None:
    path = write(name, "\ufeff\n" + table(delimiter))
    assert [(row.place, row.fields) for row in read_rows(path)] == [
        ("line 3", ROWS[0]), ("line 4", ROWS[1]),
    ]  # fmt: skip


def test_cells_hold_what_their_quotes_keep(write: Any) -> None:
    path = write("q.csv", 'question , answer\n"Is ""a"", b\nor c?",x\n\nWho?,\n')
    rows = read_rows(path)
    assert [(row.place, row.fields) for row in rows] == [
        ("line 2", {"question": 'Is "a", b\nor c?', "answer": "x"}),
        ("line 5", {"question": "Who?"}),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\nquestion;answer\nWho?;Ann\n",
        "question,answer,,\nWho?,Ann,,\n",
        "question,answer\nWho?,Ann\n,\n , \n",
        "question,answer,level\nWho?,Ann,#N/A\n",
        "question,answer,level\nWho?,Ann,nan\n",
    ],
)
def test_what_a_spreadsheet_adds_is_left_out(content: str, write: Any) -> None:
    assert fields(write("q.csv", content)) == ROWS[:1]


def test_a_long_cell_is_no_limit(write: Any) -> None:
    assert len(fields(write("q.tsv", f"id\ttext\n1\t{'x' * 300_000}\n"))[0]["text"]) == 300_000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "question,answer\nWho?,Ann\nWho?,Ann,Bo\n",
            "line 3: 3 cells where the first line has 2; ",
        ),
        ("question,answer\nWho?\n", "line 2: 1 cells where the first line has 2; quote cells that"),
        ('question,answer\nWho?,Ann\n"Who?,Ann\nWho?,Bo\n', "line 3: not a table (unexpected end"),
        ('question,answer\n"Weird" Al?,Al\n', "line 2: not a table (',' expected after '\"'"),
        ("answer,answer\nx,y\n", "line 1: two columns have the same name"),
        ("question,answer,\nWho?,Ann,Bo\n", "line 2: cell 3 contains 'Bo', but its column has no"),
    ],
)
def test_a_broken_table_names_the_line(content: str, told: str, write: Any) -> None:
    path = write("q.csv", content)
    assert refusal(path).startswith(f"{path}, {told}")


def test_jsonl_under_the_name_of_a_table_is_jsonl(write: Any) -> None:
    assert fields(write("q.csv", jsonl())) == ROWS


def test_an_object_of_splits_gives_every_row_its_split(write: Any) -> None:
    path = write("q.json", json.dumps({"train": ROWS, "Dev": ROWS[:1]}, indent=1))
    rows = read_rows(path)
    assert [(r.place, r.fields["split"]) for r in rows] == [
        ("train, item 1", "train"), ("train, item 2", "train"), ("Dev, item 1", "Dev"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["data", "rows", "Questions"])
def test_an_object_that_holds_a_list_of_rows_is_that_list(name: str, write: Any) -> None:
    assert fields(write("q.json", json.dumps({"version": 2, name: ROWS}))) == ROWS
    wrapped = [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]
    assert fields(write("q.json", json.dumps({name: wrapped, "total": 2}))) == ROWS


def test_an_object_by_ids_gives_every_row_its_id(write: Any) -> None:
    path = write("q.json", json.dumps({"a": ROWS[0], "b": ROWS[1]}))
    assert [(row.place, row.fields) for row in read_rows(path)] == [
        ("entry a", {"id": "a"} | ROWS[0]), ("entry b", {"id": "b"} | ROWS[1]),
    ]  # fmt: skip


def test_the_answer_of_a_search_is_its_hits(write: Any) -> None:
    hits = [{"_id": "7", "_source": {"text": "B"}}, {"_id": "8", "_source": {"text": "C"}}]
    path = write("q.json", json.dumps({"took": 3, "hits": {"total": 2, "hits": hits}}))
    assert fields(path) == [{"_id": "7", "text": "B"}, {"_id": "8", "text": "C"}]


@pytest.mark.parametrize("columns", ["records", "dict"])
def test_a_table_by_columns_is_read(columns: str, write: Any) -> None:
    lists: dict[str, Any] = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    if columns == "dict":
        lists = {key: {str(n): v for n, v in enumerate(values)} for key, values in lists.items()}
    assert fields(write("q.json", json.dumps(lists))) == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "data": [{"a": 1}]},
        {"messages": [{"role": "user"}, {"role": "assistant"}]},
        {"prompt": [{"role": "user"}], "completion": [{"role": "assistant"}]},
        {"text": "A", "rows": [{"a": 1}]},
        {"title": ["a"], "words": ["b", "c"]},
    ],
)
def test_a_single_row_is_no_container(row: dict[str, Any], write: Any) -> None:
    assert fields(write("q.jsonl", json.dumps(row))) == [row]
    assert fields(write("q.json", json.dumps(row, indent=2))) == [row]


def test_articles_of_squad_become_their_questions(write: Any) -> None:
    path = write("q.json", json.dumps({"version": "1.1", "data": [ARTICLE]}))
    rows = read_rows(path)
    assert [row.fields for row in rows] == [
        {"title": "Ann", "context": "Ann is.", "id": "1", "question": "Who?"},
        {"title": "Ann", "context": "Ann is.", "id": "2"},
        {"title": "Ann", "context": "Bo is.", "id": "3"},
    ]
    assert rows[2].place == "item 1, paragraph 2, question 1"
    assert fields(write("q.jsonl", json.dumps(ARTICLE) * 1 + "\n")) == [r.fields for r in rows]


def test_a_hit_of_elasticsearch_is_its_source(write: Any) -> None:
    hit = {"_index": "w", "_id": "7", "_score": 1, "_source": {"title": "A", "text": "B"}}
    assert fields(write("q.jsonl", json.dumps(hit))) == [{"_id": "7", "title": "A", "text": "B"}]


@pytest.mark.stack
def test_nan_counts_as_a_field_that_is_not_there(write: Any, tmp_path: Path) -> None:
    import pandas

    row = read_rows(write("q.jsonl", '{"a": NaN, "b": [1, Infinity], "c": 1e999}'))[0]
    assert row.fields == {"a": None, "b": [1, None], "c": None}
    pandas.DataFrame({"a": [1.0, float("nan")], "b": ["x", "y"]}).to_parquet(tmp_path / "q.parquet")
    assert fields(tmp_path / "q.parquet") == [{"a": 1.0, "b": "x"}, {"b": "y"}]


def test_values_of_arrow_become_those_of_json(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"a": date(1984, 2, 1), "b": {"c": [b"\xff"]}, "d": b"\xff"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "q.parquet")
    assert fields(tmp_path / "q.parquet") == [{"a": "1984-02-01", "b": {"c": [None]}}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{\n "data": [\n  {"a": 1},,\n ]\n}', "line 3: not JSON (Expecting value at column 12)"),
        ('{"a": 1,\n', "line 1: not JSON (Expecting property name enclosed in double quotes at"),
        ('{"a": \n{"a": 1}\n', "line 3: not JSON (Expecting ',' delimiter at column 1)"),
        ('{"a" 1}\n{"a": 1}\n', "line 1: not JSON (Expecting ':' delimiter at column 6)"),
        ("question,answer\nWho?,Ann\n", "line 1: not JSON (Expecting value at column 1); expected"),
    ],
)
def test_what_is_no_json_is_named_by_its_line(content: str, told: str, write: Any) -> None:
    path = write("q.json", content)
    assert refusal(path).startswith(f"{path}, {told}")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, DataNotFound) == f"{tmp_path} is a folder; name one of the files in it"


def test_names_are_found_whatever_their_spelling() -> None:
    row = Row("f", "line 1", {"Golden Answers": 1, "qid": None, "NormalizedAliases": 2})
    assert row.find(("answer", "golden_answers")) == ("Golden Answers", 1)
    assert row.find(("normalized_aliases",)) == ("NormalizedAliases", 2)
    assert row.find(("qid", "id")) == (None, None)
