from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.questions.parquet import stream_parquet, write_parquet


def there_and_back(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    write_parquet(rows, path)
    with path.open("rb") as file:
        return [fields for _, fields in stream_parquet(file, str(path))]


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        ["a", ["a", "b"]],
        [1, 2.5],
        [1, "1"],
        [2**70, 1],
        [{"page": 3}, {"url": "x"}],
        [[["Alpha", 0]], [["Beta", 1], ["Alpha", 2]]],
        [[], ["x"]],
        [{}, {"x": {}}],
        [True, False],
        ["𝄞\u2028", "\x00"],
    ],
    ids=repr,
)
def test_every_json_value_comes_back_as_it_was(tmp_path: Path, values: list[Any]) -> None:
    rows = [{"id": str(n), "value": value} for n, value in enumerate(values)]
    back = there_and_back(tmp_path / "f.parquet", rows)
    assert json.dumps(back) == json.dumps(rows)


def test_what_arrow_can_hold_is_an_ordinary_column(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "f.parquet"
    write_parquet([{"answer": "a", "mixed": 1}, {"answer": "b", "mixed": "x"}], path)
    table = parquet.read_table(path)
    assert table["answer"].to_pylist() == ["a", "b"]
    assert table.schema.field("mixed").type == pyarrow.string()
    assert table.schema.field("mixed").metadata == {b"rsearch": b"json"}


def test_a_field_that_a_row_lacks_stays_away(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1}, {"b": ["x"]}, {"a": 2, "b": [1]}]
    assert there_and_back(tmp_path / "f.parquet", rows) == rows
