from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound
from rsearch_cli.questions.parquet import write_parquet
from rsearch_cli.questions.rows import Row, read_rows, require_unique, stream_rows

SHAPES = "expected JSONL, a JSON list of objects, parquet, .csv or .tsv; all also as .gz"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "questions.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def failing(path: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        read_rows(path)
    assert caught.type is kind
    return str(caught.value)


def test_jsonl_rows_carry_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeff{"a": 1}\r\n\n  \n{"a": "x\u2028y"}\n')
    rows = read_rows(path)
    assert [(row.place, row.fields) for row in rows] == [
        ("line 1", {"a": 1}),
        ("line 4", {"a": "x\u2028y"}),
    ]
    assert rows[0].origin == str(path)


def test_a_json_list_is_known_by_its_first_character(tmp_path: Path) -> None:
    path = write(tmp_path, '\n [{"a": 1},\n  {"a": 2}]\n')
    assert [(row.place, row.fields["a"]) for row in read_rows(path)] == [
        ("item 1", 1),
        ("item 2", 2),
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no.jsonl"
    assert failing(path, DataNotFound) == (
        f"{path} does not exist; name a file of questions, in a recipe as questions.path"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert failing(tmp_path, DataNotFound) == f"{tmp_path} is a folder; name one of the files in it"


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", "[]"])
def test_no_rows(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, content)
    assert failing(path, DataEmpty) == f"{path} has no rows; {SHAPES}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a": 1}\n\n{"a": }\n', f"line 3: not JSON (Expecting value at column 7); {SHAPES}"),
        ('[{"a": 1},\n{"a": 2}', "line 2: not JSON (Expecting ',' delimiter at column 9)"),
        ('{"a": 1}\n[1, 2]\n', f"line 2: [1, 2] is not an object; {SHAPES}"),
        ('[{"a": 1}, "b"]', f'item 2: "b" is not an object; {SHAPES}'),
        (
            '{"a": "\\ud83d"}\n',
            "line 1: an escape such as \\ud83d is only half of a su",
        ),
        ('{"a": 1}\n{"a": ' + "9" * 5000 + "}", "line 2: not readable (Exceeds the limit"),
        ('{"a": ' + "[" * 100_000, "line 1: not readable (maximum recursion"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, content: str, problem: str) -> None:
    path = write(tmp_path, content)
    assert failing(path, DataMalformed).startswith(f"{path}, {problem}")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, start: bytes) -> None:
    path = write(tmp_path, start + b'{"a": 1}\n{"a": "caf\xe9"}\n')
    assert failing(path, DataMalformed) == (
        f"{path}, line 2: not UTF-8 (byte 0xe9); save the file as UTF-8"
    )


def test_whole_surrogate_pairs_are_welcome(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"a": "\N{GRINNING FACE}"}))
    assert read_rows(path)[0].fields == {"a": "\N{GRINNING FACE}"}


def test_text_is_stripped_and_defaults_where_absent() -> None:
    row = Row("f", "line 1", {"a": " x ", "b": None})
    assert row.text("a") == "x"
    assert row.text("b", default="") == row.text("c", default="") == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "f, line 9: 'a' is missing"),
        ({"a": None, "id": "q7"}, "f, line 9 (id \"q7\"): 'a' is missing"),
        ({"a": 3, "_id": "q7"}, "f, line 9 (id \"q7\"): 'a' must be a string, not 3"),
        ({"a": " ", "id": 7}, "f, line 9 (id 7): 'a' is empty"),
        ({"a": ["y" * 80]}, f"f, line 9: 'a' must be a string, not [\"{'y' * 55}..."),
    ],
)
def test_a_bad_field_names_row_and_id(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataMalformed, match=f"^{re.escape(message)}$"):
        Row("f", "line 9", fields).text("a")


def test_two_rows_of_one_id_are_both_named() -> None:
    rows = [Row("f", f"line {n}", {}) for n in (1, 2, 5)]
    require_unique(zip("abc", rows, strict=True))
    message = 'f, line 5: id "a" is already used by line 1; every question needs its own id'
    with pytest.raises(DataMalformed, match=f"^{re.escape(message)}$"):
        require_unique(zip("aba", rows, strict=True))


def test_parquet_rows_carry_their_number(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"  # the content counts, not the name
    write_parquet([{"a": 1}, {"b": "x"}], path)
    rows = read_rows(path)
    assert [(row.place, row.fields) for row in rows] == [
        ("row 1", {"a": 1}),
        ("row 2", {"b": "x"}),
    ]


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "questions.parquet"
    write_parquet([{"a": 1}], path)
    path.write_bytes(path.read_bytes()[:-9])
    assert failing(path, DataMalformed).startswith(f"{path}: incomplete or damaged parquet file (")


def test_a_stream_reads_no_further_than_it_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeff{"a": 1}\r\n\n{"a": }\n')
    rows = stream_rows(path, origin="things", expected="expected things", remedy="get some")
    assert next(rows) == Row("things", "line 1", {"a": 1})
    with pytest.raises(DataMalformed) as caught:
        next(rows)
    assert str(caught.value) == (
        "things, line 3: not JSON (Expecting value at column 7); expected things"
    )


def test_a_stream_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"^things does not exist; get some$"):
        list(stream_rows(tmp_path / "no", origin="things", expected="", remedy="get some"))
