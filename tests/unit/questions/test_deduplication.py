from __future__ import annotations

import pytest

from rsearch_cli.questions.deduplication import (
    Removal,
    drop_duplicates,
    drop_leaks,
    locate_questions,
    normalise_question,
)
from rsearch_cli.questions.records import Record
from rsearch_cli.types import Question


def record(name: str, text: str, *answers: str) -> Record:
    return Record(Question(name, text, answers or ("x",)), {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who wrote Dune?", "who  wrote\tdune"),
        ("Who wrote “Dune”?", 'Who wrote "Dune" ?'),
        ("首都是哪里？", "首都是哪里。"),
        ("Who wrote Dune?!", "Ｗho wrote Dune..."),
        ("Whose is l'Étoile?", "Whose is l’É\u0301toile?".replace("É\u0301", "E\u0301")),
    ],
)
def test_the_same_question_typed_twice(one: str, other: str) -> None:
    assert normalise_question(one) == normalise_question(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is C?", "What is C++?"), ("Is 1.5 odd?", "Is 15 odd?"), ("???", "!"), ("Où?", "Ou?")],
)
def test_questions_that_only_look_alike(one: str, other: str) -> None:
    assert normalise_question(one) != normalise_question(other)


def test_the_first_of_duplicates_stays() -> None:
    records = [
        record("a", "Who?", "Ann"),
        record("b", "Where?"),
        record("c", "who", "ann", "Anne"),
        record("d", "WHO?", "Bob"),
    ]
    kept, removals = drop_duplicates(records)
    assert kept == records[:2]
    assert removals == [Removal("c", "a"), Removal("d", "a", answers_differ=True)]


def test_leaks_name_where_the_question_stands() -> None:
    elsewhere = locate_questions([("q1", "Who?"), ("q2", "who")], "validation")
    assert elsewhere == {"who": "validation q1"}
    records = [record("a", "WHO?"), record("b", "Where?")]
    assert drop_leaks(records, elsewhere) == ([records[1]], [Removal("a", "validation q1")])
