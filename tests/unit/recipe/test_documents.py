from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsearch_cli.errors import RecipeError
from rsearch_cli.recipe.documents import dump_document, parse_document


@pytest.mark.parametrize(
    ("text", "number"),
    [("5e-6", 5e-6), ("1e3", 1000.0), ("-2E+4", -2e4), ("1.5e-3", 0.0015), (".5e1", 5.0)],
)
def test_a_number_with_an_exponent_is_a_float(text: str, number: float) -> None:
    value = parse_document(f"rate: {text}", "x.yaml").data["rate"]
    assert isinstance(value, float)
    assert value == number


@pytest.mark.parametrize("text", ["5e", "e5", "1e3x", "'5e-6'", "v1.5e-3"])
def test_what_only_looks_like_an_exponent_stays_text(text: str) -> None:
    assert parse_document(text, "x.yaml").data == text.strip("'")


def test_text_that_looks_like_a_number_is_quoted_when_written() -> None:
    assert dump_document({"model": "5e-6"}) == "model: '5e-6'\n"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.text(max_size=40)
        | st.floats(allow_nan=False)
        | st.integers()
        | st.booleans()
        | st.none()
        | st.lists(st.text(max_size=8), max_size=3),
        max_size=4,
    )
)
def test_a_written_document_reads_back_identically(data: dict[str, object]) -> None:
    assert parse_document(dump_document(data), "x.yaml").data == data


def test_every_key_knows_its_line() -> None:
    document = parse_document("a: 1\nb:\n  c: 2\n  d:\n  - e: 3\n", "x.yaml")
    assert document.lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "d"): 4,
        ("b", "d", "0", "e"): 5,
    }


def test_a_duplicate_key_is_a_flaw_with_both_lines() -> None:
    document = parse_document("train:\n  max_steps: 1\n  beta: 0.0\n  max_steps: 2\n", "x.yaml")
    assert document.flaws == ((4, "train.max_steps is given twice, first on line 2"),)


def test_merge_keys_are_not_taken_for_duplicates() -> None:
    document = parse_document("a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n", "x.yaml")
    assert document.data["b"] == {"x": 2}
    assert document.flaws == ()


def test_an_empty_document_has_no_data() -> None:
    assert parse_document("# nothing but this\n", "x.yaml").data is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [2\n", "x.yaml:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: but found another document"),
        ("{a", "x.yaml: not valid YAML: expected ',' or '}', but got '<stream end>'"),
        ("a: 2024-13-01", "x.yaml: not valid YAML: month must be in 1..12"),
        ("a: !!python/name:os.system x", "x.yaml: not valid YAML: could not determine"),
        ("a: \x00", "x.yaml: not valid YAML: unacceptable character #x0000"),
    ],
)
def test_what_is_not_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_document(text, "x.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
