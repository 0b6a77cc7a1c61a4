from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed, DataNotFound, RecipeValueError
from rsearch_cli.questions.custom import open_custom
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.types import Question


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., QuestionsConfig]:
    def to_recipe(*rows: dict[str, Any], **settings: Any) -> QuestionsConfig:
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return QuestionsConfig(source="custom", path=str(path), **settings)

    return to_recipe


def row(**fields: Any) -> dict[str, Any]:
    return {"question": "Who?", "answer": "Ann"} | fields


def test_rows_become_questions(write: Callable[..., QuestionsConfig]) -> None:
    recipe = write(
        row(split="train"),
        row(id=7, answer=[" Ann ", "Anne"], split="train"),
        row(
            id="x",
            type="bridge",
            level="easy",
            origin={"page": 3},
            split="train",
            supporting_titles=["A", "B"],
        ),
    )
    assert open_custom(recipe, seed=1).load("train", None) == [
        Question("line-1", "Who?", ("Ann",)),
        Question("7", "Who?", ("Ann", "Anne")),
        Question("x", "Who?", ("Ann",), "bridge", "easy", ("A", "B"), {"origin": {"page": 3}}),
    ]


def test_ids_of_a_json_list_count_items(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([row(), row()]))
    opened = open_custom(QuestionsConfig(source="custom", path=str(path)), seed=1)
    both = opened.load("train", None) + opened.load("test", None)
    assert sorted(q.id for q in both) == ["item-1", "item-2"]
    assert (opened.name, opened.description) == (str(path), f"questions from {path}")


def test_a_file_without_splits_is_dealt_out(write: Callable[..., QuestionsConfig]) -> None:
    opened = open_custom(write(*[row(id=n) for n in range(50)], held_out_share=0.5), seed=1)
    train, held_out = opened.load("train", None), opened.load("validation", None)
    assert len(train) + len(held_out) == len({q.id for q in train + held_out}) == 50
    assert 15 <= len(held_out) <= 35


def test_named_splits_are_honoured(write: Callable[..., QuestionsConfig]) -> None:
    opened = open_custom(write(row(split="train"), row(split="dev"), row(split="train")), seed=1)
    assert [q.id for q in opened.load("train", None)] == ["line-1", "line-3"]
    assert [q.id for q in opened.load("dev", None)] == ["line-2"]
    with pytest.raises(
        DataError, match=r"mine\.jsonl has no split 'test'; it has train, dev: choose one"
    ):
        opened.load("test", None)


def test_levels_are_filtered(write: Callable[..., QuestionsConfig]) -> None:
    rows = [row(id="a", level="easy", split="train"), row(id="b", split="train")]
    opened = open_custom(write(*rows, difficulty=["easy"]), seed=1)
    assert [q.id for q in opened.load("train", None)] == ["a"]
    with pytest.raises(
        DataEmpty, match=r"no question has questions\.difficulty hard; it has easy \(1\), no lev"
    ):
        open_custom(write(*rows, difficulty=["hard"]), seed=1)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (
            {"question": "Who?", "id": "q9"},
            " (id \"q9\"): 'answer' is missing; its fields are question, id: rename the one "
            "with the answer to 'answer'",
        ),
        ({"answer": "Ann"}, ": 'question' is missing; its fields are answer: rename the one"),
        (
            {"id": "1", "title": "Dune", "text": "A novel."},
            " (id \"1\"): 'question' is missing; its fields are id, title, text: passages belong "
            "in search.sources.<name>.corpus",
        ),
        (row(question=" "), ": 'question' is empty"),
        (row(question=["Who?"]), ": 'question': \"Who?\" is not a text message of a user"),
        (row(answer=""), ": 'answer' contains no answer; remove questions without answers"),
        (row(answer=[]), ": 'answer' contains no answer"),
        (
            row(answer=[["a"], ["b"]]),
            ": 'answer' must be a string or a list of strings, not [[\"a\"]",
        ),
        (row(answer={"spans": ["a"]}), ": 'answer' must be a string or a list of strings, not {"),
        (
            row(supporting_titles="A"),
            ": 'supporting_titles' must be a list of strings, not \"A\"",
        ),
        (row(id=True), " (id true): 'id' must be a string, not true"),
    ],
)
def test_a_bad_row_is_named(
    bad: dict[str, Any], problem: str, write: Callable[..., QuestionsConfig]
) -> None:
    recipe = write(row(), bad)
    with pytest.raises(DataMalformed) as caught:
        open_custom(recipe, seed=1)
    assert str(caught.value).startswith(f"{recipe.path}, line 2{problem}")


def test_an_answer_of_unknown_name_beside_titles_is_warned_of(
    write: Callable[..., QuestionsConfig], caplog: pytest.LogCaptureFixture
) -> None:
    titled = {"question": "Who?", "supporting_titles": ["A"], "type": "bridge"}
    open_custom(write(row(origin="x"), titled), seed=1)
    assert not caplog.messages, "an answer, or nothing that could be one"
    recipe = write(titled | {"solution": "Ann"}, titled | {"source": 3}, row(origin="x"))
    open_custom(recipe, seed=1)
    assert caplog.messages == [
        f"{recipe.path}: 2 of 3 questions have no answer, only supporting titles, and further "
        "fields ('solution', 'source'); if one of these is the answer, rename it to 'answer'"
    ]


def test_records_keep_the_rows_and_give_every_one_an_id(
    write: Callable[..., QuestionsConfig],
) -> None:
    rows = [row(id=7, origin=[1], split="train"), row(split="dev"), row(id="x", split="train")]
    opened = open_custom(write(*rows), seed=1)
    assert [dict(r.fields) for r in opened.records(None)] == [
        rows[0], {"id": "line-2", **rows[1]}, rows[2],
    ]  # fmt: skip
    assert [r.question.id for r in opened.records("train")] == ["7", "x"]
    with pytest.raises(DataError, match=r"has no split 'test'; it has train, dev: choose one"):
        opened.records("test")


def test_a_split_for_some_rows_only(write: Callable[..., QuestionsConfig]) -> None:
    with pytest.raises(DataMalformed, match=r"line 1: has no 'split', but line 2 has; give all"):
        open_custom(write(row(), row(split="train")), seed=1)


def test_a_repeated_id_names_both_lines(write: Callable[..., QuestionsConfig]) -> None:
    with pytest.raises(DataMalformed, match=r'line 3: id "1" is already used by line 2; every'):
        open_custom(write(row(id="a"), row(id=1), row(id="1")), seed=1)


def test_without_a_path() -> None:
    with pytest.raises(RecipeValueError, match=r"^questions\.source 'custom' needs questi"):
        open_custom(QuestionsConfig(source="custom"), seed=1)


def test_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"no\.jsonl does not exist; name a file of questions"):
        open_custom(QuestionsConfig(source="custom", path=str(tmp_path / "no.jsonl")), seed=1)


def test_there_is_no_corpus(write: Callable[..., QuestionsConfig]) -> None:
    with pytest.raises(DataError, match=r"mine\.jsonl has no corpus; set search\.sources\.<na"):
        open_custom(write(row()), seed=1).corpus()
