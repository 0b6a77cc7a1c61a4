from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed, DataNotFound, RecipeValueError
from rsearch_cli.questions.hotpotqa import open_hotpotqa
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.types import Passage, Question

HUB_ROW = {
    "id": "q1",
    "question": "Which band is older?",
    "answer": "Alpha",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": {"title": ["Alpha", "Beta", "Alpha"], "sent_id": [0, 1, 2]},
    "context": {
        "title": ["Alpha", "Beta"],
        "sentences": [["Alpha began in 1990.", " It ended."], ["Beta began in 2000."]],
    },
}
AUTHORS_ROW = {
    "_id": "q1",
    "question": "Which band is older?",
    "answer": "Alpha",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": [["Alpha", 0], ["Beta", 1], ["Alpha", 2]],
    "context": [
        ["Alpha", ["Alpha began in 1990.", " It ended."]],
        ["Beta", ["Beta began in 2000."]],
    ],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., QuestionsConfig]:
    def to_recipe(*rows: dict[str, Any], **settings: Any) -> QuestionsConfig:
        path = tmp_path / "hotpot.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return QuestionsConfig(path=str(path), **settings)

    return to_recipe


def test_the_real_file(hotpot_file: Path) -> None:
    opened = open_hotpotqa(QuestionsConfig(path=str(hotpot_file)), seed=42)
    train, held_out = opened.load("train", None), opened.load("validation", None)
    corpus = list(opened.corpus())

    assert len(train) + len(held_out) == len({q.id for q in train + held_out}) == 60
    assert 4 <= len(held_out) <= 22
    assert opened.load("test", None) == held_out
    assert len(corpus) == len({p.id for p in corpus}) == 600
    assert all(p.text and p.source == "" for p in corpus)
    gold = {title for q in train + held_out for title in q.supporting_titles}
    assert len(gold) > 100 and gold <= {p.title for p in corpus}
    assert {q.level for q in train} == {"hard"} and {q.type for q in train} <= {
        "bridge",
        "comparison",
    }
    assert "5a87bd4e5542994846c1cde0" in {q.id for q in train + held_out}
    assert opened.description == f"HotpotQA from {hotpot_file}"


@pytest.mark.parametrize("row", [HUB_ROW, AUTHORS_ROW], ids=["hub", "authors"])
def test_both_forms_read_alike(row: dict[str, Any], write: Callable[..., QuestionsConfig]) -> None:
    opened = open_hotpotqa(write(row | {"note": 1}, difficulty=["hard"]), seed=1)
    assert opened.load("train", None) == [
        Question(
            id="q1",
            text="Which band is older?",
            answers=("Alpha",),
            type="comparison",
            level="hard",
            supporting_titles=("Alpha", "Beta"),
            metadata={"note": 1},
        )
    ]
    assert list(opened.corpus()) == [
        Passage("Alpha", "Alpha", "Alpha began in 1990. It ended."),
        Passage("Beta", "Beta", "Beta began in 2000."),
    ]
    assert opened.description.endswith(", level hard")


def test_a_json_list_works_too(tmp_path: Path) -> None:
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps([AUTHORS_ROW, AUTHORS_ROW | {"_id": "q2"}]))
    opened = open_hotpotqa(QuestionsConfig(path=str(path)), seed=1)
    assert len(opened.load("train", None)) == len(opened.load("test", None)) == 1


def test_paragraphs_come_once_and_equal_titles_are_numbered(
    write: Callable[..., QuestionsConfig],
) -> None:
    other = {"context": [["Alpha", ["A letter."]], ["Beta", ["Beta began in 2000."]]]}
    recipe = write(AUTHORS_ROW, AUTHORS_ROW | other | {"_id": "q2"})
    assert [(p.id, p.title, p.text) for p in open_hotpotqa(recipe, 1).corpus()] == [
        ("Alpha", "Alpha", "Alpha began in 1990. It ended."),
        ("Beta", "Beta", "Beta began in 2000."),
        ("Alpha#2", "Alpha", "A letter."),
    ]


def test_the_filter_takes_questions_but_no_paragraphs(
    write: Callable[..., QuestionsConfig],
) -> None:
    easy = {"_id": "q2", "level": "easy", "context": [["Gamma", ["A ray."]]]}
    opened = open_hotpotqa(write(AUTHORS_ROW, AUTHORS_ROW | easy, difficulty=["hard"]), seed=1)
    assert [q.id for q in opened.load("train", None)] == ["q1"]
    assert [p.title for p in opened.corpus()] == ["Alpha", "Beta", "Gamma"]


def test_a_level_that_is_not_there(write: Callable[..., QuestionsConfig]) -> None:
    recipe = write(AUTHORS_ROW, difficulty=["easy"])
    with pytest.raises(DataEmpty) as caught:
        open_hotpotqa(recipe, seed=1)
    assert str(caught.value) == (
        f"{recipe.path}: no question has questions.difficulty easy; it has hard (1): "
        "choose an existing level, or keep all with questions.difficulty=null"
    )


def test_a_repeated_id_names_both_lines(write: Callable[..., QuestionsConfig]) -> None:
    with pytest.raises(DataMalformed, match=r'line 2: id "q1" is already used by line 1; every'):
        open_hotpotqa(write(AUTHORS_ROW, HUB_ROW), seed=1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer": None}, "(id \"q1\"): 'answer' is null or NaN"),
        ({"question": 3}, "(id \"q1\"): 'question' must be a string, not 3"),
        (
            {"context": None, "supporting_facts": None},
            '(id "q1"): not a HotpotQA row, its fields are _id, question, answer, type, '
            "level; use questions.source=custom",
        ),
        ({"context": {"title": ["A"], "sentences": []}}, "(id \"q1\"): 'context' must be {"),
        ({"context": [["A", "b"]]}, '(id "q1"): \'context\': the sentences of "A" must be a li'),
        (
            {"context": [["A"]]},
            "of equal length, or a list of [title, sentences] pairs; it is",
        ),
        ({"supporting_facts": [[1, 2]]}, '(id "q1"): \'supporting_facts\' must be {"title"'),
    ],
)
def test_what_breaks_the_schema_is_named(
    change: dict[str, Any], problem: str, write: Callable[..., QuestionsConfig]
) -> None:
    with pytest.raises(DataMalformed) as caught:
        open_hotpotqa(write(AUTHORS_ROW | {"_id": "q0"}, AUTHORS_ROW | change), seed=1)
    assert ", line 2" in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.stack
def test_an_unreachable_hub_comes_with_a_remedy() -> None:
    opened = open_hotpotqa(QuestionsConfig(), seed=1)
    with pytest.raises(DataNotFound) as caught:
        opened.load("train", 1)
    assert str(caught.value).startswith("hotpotqa/hotpot_qa cannot be downloaded from the Hub (")
    assert str(caught.value).endswith("set questions.path to a local HotpotQA file")


def test_an_unknown_variant() -> None:
    with pytest.raises(RecipeValueError) as caught:
        open_hotpotqa(QuestionsConfig(source="hotpotqa:wiki"), seed=1)
    assert str(caught.value) == (
        "questions.source: HotpotQA has no variant 'wiki'; it has distractor, fullwiki"
    )


@pytest.mark.parametrize("row", [HUB_ROW, AUTHORS_ROW], ids=["hub", "authors"])
def test_records_are_the_rows_as_they_came(
    row: dict[str, Any], write: Callable[..., QuestionsConfig]
) -> None:
    (record,) = open_hotpotqa(write(row | {"note": 1}), seed=1).records(None)
    assert record.fields == row | {"note": 1}
    assert record.question.supporting_titles == ("Alpha", "Beta")


@pytest.mark.stack
def test_the_hub_set_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(name: str, config: str, split: str) -> datasets.Dataset:
        assert (name, config) == ("hotpotqa/hotpot_qa", "fullwiki")
        return datasets.Dataset.from_list([HUB_ROW | {"id": split}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    opened = open_hotpotqa(QuestionsConfig(source="hotpotqa:fullwiki"), seed=1)
    assert opened.description == "hotpotqa/hotpot_qa (fullwiki) from the Hub, all levels"
    assert [dict(r.fields) for r in opened.records(None)] == [HUB_ROW | {"id": "train"}]
    assert [r.question.id for r in opened.records("validation")] == ["validation"]
    with pytest.raises(DataError, match=r"^HotpotQA has no split 'test'"):
        opened.records("test")


@pytest.mark.stack
def test_the_hub_set_keeps_its_own_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    tables = {
        "train": [HUB_ROW, HUB_ROW | {"id": "q2", "level": "easy"}, HUB_ROW | {"id": "q3"}],
        "validation": [HUB_ROW | {"id": "q4", "context": {"title": ["G"], "sentences": [["g"]]}}],
    }

    def load_dataset(name: str, config: str, split: str) -> datasets.Dataset:
        assert (name, config) == ("hotpotqa/hotpot_qa", "distractor")
        return datasets.Dataset.from_list(tables[split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    opened = open_hotpotqa(QuestionsConfig(difficulty=["hard"]), seed=1)
    assert [q.id for q in opened.load("train", None)] == ["q1", "q3"]
    assert [q.id for q in opened.load("train", 1)] == ["q1"]
    assert opened.load("validation", None)[0].supporting_titles == ("Alpha", "Beta")
    assert [p.id for p in opened.corpus()] == ["Alpha", "Beta", "G"]
    assert opened.description == "hotpotqa/hotpot_qa (distractor) from the Hub, level hard"
    with pytest.raises(
        DataError, match=r"^HotpotQA has no split 'test'; it has train, validation: choose"
    ):
        opened.load("test", None)
