"""Files as people bring them: all are read, but for the one whose answer is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.errors import DataMalformed
from rsearch_cli.questions.sets import WHOLE, open_question_set
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.search.corpus import read_corpus


def test_every_question_file_is_read_as_the_same_questions(shared_cases: Path) -> None:
    files = [p for p in sorted((shared_cases / "questions").iterdir()) if p.stem != "nan"]
    assert len(files) >= 10
    for path in files:
        opened = open_question_set(QuestionsConfig(source="custom", path=str(path)), seed=1)
        questions = opened.load(WHOLE, None)
        assert sorted(answer for q in questions for answer in q.answers) == [
            "Frank Herbert", "Paris", "Steve Jobs", "Ulm", "blue", "no",
        ], path.name  # fmt: skip
        prefix = "Answer the question: " if path.stem == "searchr1" else ""
        assert f"{prefix}Who wrote Dune?" in [q.text for q in questions], path.name


def test_an_answer_that_is_nan_is_refused_with_its_line(shared_cases: Path) -> None:
    path = shared_cases / "questions" / "nan.jsonl"
    with pytest.raises(DataMalformed, match=r"nan\.jsonl, line 2: 'answer' is null or NaN"):
        open_question_set(QuestionsConfig(source="custom", path=str(path)), seed=1)


def test_every_corpus_is_read_as_the_same_passages(shared_cases: Path) -> None:
    files = sorted((shared_cases / "corpora").iterdir())
    assert len(files) >= 6
    for path in files:
        assert [(p.title, p.text) for p in read_corpus(path)] == [
            ("Dune", "Dune was written by Frank Herbert."),
            ("France", "The capital of France is Paris."),
        ], path.name
