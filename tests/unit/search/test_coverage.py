from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty
from rsearch_cli.search.bm25 import open_index
from rsearch_cli.search.coverage import Coverage, measure_coverage
from rsearch_cli.types import Passage, Question

PASSAGES = [
    Passage("1", "Port Ellow", "A harbour town where Tessa Korrin was born."),
    Passage("2", "No Greater Glory (1934 film)", "Frank Borzage directed it."),
]


def ask(number: int, answer: str, *titles: str) -> Question:
    return Question(str(number), "?", (answer,) if answer else (), supporting_titles=titles)


def test_titles_and_answers_are_counted(tmp_path: Path) -> None:
    questions = [
        ask(1, "Tessa Korrin", "Port Ellow"),
        ask(2, "Korrin Tessa", "port ellow", "Nowhere"),
        ask(3, "the FRANK Borzage", "No Greater Glory (1934 film)"),
        ask(6, "", "No Greater Glory (1999 film)"),
        ask(4, "yes", "Nowhere", "Elsewhere"),
        ask(5, ""),
    ]
    read: list[int] = []
    found = measure_coverage(open_index(PASSAGES, tmp_path), questions, read.append)
    assert found == Coverage(
        passages=2,
        questions=6,
        with_titles=5,
        all_titles=2,
        with_answers=3,
        answer_found=2,
        missing_titles=("Nowhere", "No Greater Glory (1999 film)", "Elsewhere"),
    )
    assert read == [1, 2]


def test_questions_without_titles_and_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataEmpty, match="neither titles of their evidence nor answers"):
        measure_coverage(open_index(PASSAGES, tmp_path), [ask(1, "yes")])
