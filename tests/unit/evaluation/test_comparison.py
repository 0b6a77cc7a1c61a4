"""Two evaluations side by side."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.comparison import compare_records


def test_differences_are_paired_by_question(record):
    first = [record(f"q{i}", float(i < 2)) for i in range(8)]
    second = [record(f"q{i}", float(i != 0)) for i in reversed(range(8))]
    compared = compare_records(first, second)
    em = compared["metrics"]["em"]
    assert (em["first"], em["second"], em["difference"]) == (2 / 8, 7 / 8, 5 / 8)
    assert em["interval"][0] < 5 / 8 < em["interval"][1]
    assert (em["test"], em["n"]) == ("McNemar", 8)
    assert em["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert compared["metrics"]["f1"]["test"] == "sign flips"


def test_flipped_questions_are_told_with_both_answers(record):
    compared = compare_records(
        [record("a", 1.0), record("b", 0.0), record("c", 1.0)],
        [record("a", 0.0), record("b", 1.0), record("c", 1.0)],
    )
    assert [flip["id"] for flip in compared["gained"]] == ["b"]
    assert compared["lost"] == [
        {
            "id": "a",
            "question": "Question a?",
            "references": ["Paris"],
            "first": "Paris",
            "second": "Rome",
        }
    ]


def test_what_one_side_could_not_measure_is_left_out_of_both(record):
    first = [record("a", judge=1.0), record("b", judge=None), record("c", 0.0, failure="no reply")]
    second = [record("a", judge=0.5), record("b", judge=1.0), record("c", 1.0, judge=1.0)]
    compared = compare_records(first, second)
    assert compared["n"] == 3
    assert compared["metrics"]["judge"]["n"] == 1
    assert compared["metrics"]["judge"]["difference"] == -0.5
    assert compared["metrics"]["em"]["n"] == 2
    assert "title_recall" not in compared["metrics"]
    assert compared["gained"] == []


def test_other_questions_are_refused(record):
    with pytest.raises(DataError, match="different questions cannot be compared"):
        compare_records([record("a")], [record("b")])


def test_another_text_under_the_same_id_is_refused(record):
    with pytest.raises(DataError, match="question 'a' is another one in the two evaluations"):
        compare_records([record("a")], [record("a", text="Something else?")])
