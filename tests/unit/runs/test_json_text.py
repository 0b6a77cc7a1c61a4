from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest

import rsearch_cli
from rsearch_cli.runs import json_text
from rsearch_cli.runs.json_text import dump_json, finite_only, parse_json

PACKAGE = Path(rsearch_cli.__file__).parent
# They quote a value in a message, where NaN is NaN, or spell a key as others may quote it.
MESSAGES = {"recipe/documents.py", "recipe/addresses.py", "services/keys.py"}


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_written_is_json_whatever_the_numbers_are(number: float) -> None:
    value = {"a": number, "b": [1.5, (number, {"c": number})], "d": "NaN"}
    text = dump_json(value)
    assert json.loads(text, parse_constant=refuse) == {
        "a": None, "b": [1.5, [None, {"c": None}]], "d": "NaN",
    }  # fmt: skip


def test_text_stays_as_it_is_and_options_go_through() -> None:
    assert dump_json({"b": "é", "a": 1}, sort_keys=True) == '{"a": 1, "b": "é"}'
    assert dump_json(["é", math.nan], ensure_ascii=True) == '["\\u00e9", null]'


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_none_is_read_as_null(text: str) -> None:
    assert parse_json(f'{{"a": [{text}, 1.5]}}') == {"a": [None, 1.5]}


def test_finite_values_stay_as_they_are() -> None:
    value = {"a": [1, 2.5, "x", None, True]}
    assert finite_only(value) == value


def find_dumps(tree: ast.AST) -> list[int]:
    """Lines that write JSON by Python's own module without `allow_nan=False`."""

    def is_unsafe(node: ast.AST) -> bool:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            return False
        written_by_json = ast.unparse(node.func) in ("json.dumps", "json.dump")
        return written_by_json and all(
            keyword.arg != "allow_nan" or ast.unparse(keyword.value) != "False"
            for keyword in node.keywords
        )

    return [node.lineno for node in ast.walk(tree) if is_unsafe(node)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("json.dumps(x)", [1]),
        ("json.dump(x, f, allow_nan=True)", [1]),
        ("json.dumps(x, allow_nan=False)", []),
    ],
)
def test_the_search_for_other_writers_finds_them(line: str, found: list[int]) -> None:
    assert find_dumps(ast.parse(line)) == found


def test_no_module_writes_json_in_another_way() -> None:
    own = {"runs/json_text.py", *MESSAGES}
    modules = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, Any] = {
        name: lines
        for name, path in modules.items()
        if name not in own and (lines := find_dumps(ast.parse(path.read_text("utf-8"))))
    }
    assert found == {}


def test_a_file_without_measure_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(json_text, "MOST_CHARS", 10)
    (tmp_path / "large.json").write_text('{"a": "' + "x" * 20 + '"}')
    with pytest.raises(ValueError, match="more than 10 characters"):
        json_text.read_json_object(tmp_path / "large.json")
