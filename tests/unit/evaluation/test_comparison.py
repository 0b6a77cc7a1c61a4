"""Two evaluations side by side."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.comparison import compare, pair_results


def test_differences_are_paired_by_question(result):
    first = [result(f"q{i}", float(i < 2)) for i in range(8)]
    second = [result(f"q{i}", float(i != 0)) for i in reversed(range(8))]
    compared = compare(first, second)
    em = compared["metrics"]["em"]
    assert (em["first"], em["second"], em["difference"]) == (2 / 8, 7 / 8, 5 / 8)
    assert em["interval"][0] < 5 / 8 < em["interval"][1]
    assert (em["test"], em["n"]) == ("McNemar", 8)
    assert em["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert compared["metrics"]["f1"]["test"] == "sign flips"


def test_flipped_questions_are_listed_with_both_answers(result):
    compared = compare(
        [result("a", 1.0), result("b", 0.0), result("c", 1.0)],
        [result("a", 0.0), result("b", 1.0), result("c", 1.0)],
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


def test_what_one_side_could_not_measure_is_left_out_of_both(result):
    first = [result("a", judge=1.0), result("b", judge=None), result("c", 0.0, failure="no reply")]
    second = [result("a", judge=0.5), result("b", judge=1.0), result("c", 1.0, judge=1.0)]
    compared = compare(first, second)
    assert compared["n"] == 3
    assert compared["metrics"]["judge"]["n"] == 1
    assert compared["metrics"]["judge"]["difference"] == -0.5
    assert compared["metrics"]["em"]["n"] == 2
    assert "title_recall" not in compared["metrics"]
    assert compared["gained"] == []


def test_results_are_paired_by_id_and_not_by_place(results):
    before, after = results(0, 0, 0, 1), results(1, 1, 1, 0)
    assert compare(before, after) == compare(before, after[::-1])


def test_other_questions_cannot_be_compared(result):
    with pytest.raises(DataError, match=r"2 ids are in only one of them, such as 'q1'; evaluate"):
        pair_results([result("q0"), result("q1")], [result("q0"), result("q9")])


def test_a_question_that_occurs_twice_is_refused(result):
    twice = [result("q0"), result("q0", 0.0)]
    with pytest.raises(DataError, match="a question twice: 1 ids for 2 and 1 predictions"):
        pair_results(twice, [result("q0")])


def test_another_text_under_the_same_id_is_refused(result):
    with pytest.raises(DataError, match="question 'a' differs between the two evaluations"):
        compare([result("a")], [result("a", text="Something else?")])
