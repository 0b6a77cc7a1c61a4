from __future__ import annotations

from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataError, RecipeValueError
from rsearch_cli.questions.sets import (
    QUESTION_SETS,
    FileQuestionSet,
    assign_splits,
    keep_levels,
    load_records,
    open_question_set,
)
from rsearch_cli.recipe.schema import QuestionsConfig
from rsearch_cli.types import Passage, Question


def ask(count: int, level: str = "") -> list[Question]:
    return [
        Question(f"q{n}", f"Question {n}?", (f"answer {n}",), level=level) for n in range(count)
    ]


def holding_out(share: float, by: str = "question") -> QuestionsConfig:
    return QuestionsConfig(held_out_share=share, held_out_by=by)


def ids(questions: list[Question]) -> list[str]:
    return [q.id for q in questions]


@pytest.fixture
def one_row_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One row that is in the schema of every set that lives in a file."""
    path = tmp_path_factory.mktemp("sets") / "one.jsonl"
    path.write_text(
        '{"id": "a", "question": "Who?", "answer": "Ann", "level": "hard", '
        '"golden_answers": ["Ann"], "supporting_facts": [["Ann", 0]], '
        '"context": [["Ann", ["It was Ann."]]]}'
    )
    return str(path)


@pytest.mark.parametrize("source", QUESTION_SETS)
def test_every_registered_set_opens(source: str, one_row_file: str) -> None:
    path = None if source == "world" else one_row_file
    opened = open_question_set(QuestionsConfig(source=source, path=path), seed=1)
    assert opened.name
    assert opened.description and "\n" not in opened.description
    first = opened.load("train", 1)
    assert len(first) == 1 and first[0].answers
    assert first == opened.load("train", None)[:1]


@pytest.mark.parametrize(
    ("source", "hint"),
    [("hotpot", "; did you mean 'hotpotqa'?"), ("Wordl", "; did you mean 'world'?")],
)
def test_an_unknown_set_gets_the_nearest_name(source: str, hint: str) -> None:
    with pytest.raises(RecipeValueError) as caught:
        open_question_set(QuestionsConfig(source=source), seed=1)
    assert str(caught.value) == (
        f"questions.source: unknown question set '{source}'{hint} "
        "Available: custom, flashrag, hotpotqa, world. Where to search is set with "
        "search.sources.<name>.type"
    )


def test_an_unknown_set_with_no_near_name_lists_all() -> None:
    with pytest.raises(
        RecipeValueError, match=r"'xyz'\. Available: custom, flashrag, hotpotqa, world\."
    ):
        open_question_set(QuestionsConfig(source="xyz"), seed=1)


def test_the_world_refuses_a_file_that_it_would_not_read() -> None:
    with pytest.raises(RecipeValueError, match=r"reads no file, but questions\.path is mine\.json"):
        open_question_set(QuestionsConfig(source="world", path="mine.jsonl"), seed=1)


@pytest.mark.parametrize("source", ["world:7", "custom:x"])
def test_a_variant_of_a_set_without_variants_is_refused(source: str) -> None:
    name = source.partition(":")[0]
    with pytest.raises(RecipeValueError) as caught:
        open_question_set(QuestionsConfig(source=source), seed=1)
    assert str(caught.value) == (
        f"questions.source: '{name}' has no variants, got '{source}'; use {name}"
    )


def test_a_set_of_questions_alone_gets_rows_of_custom_sets() -> None:
    class Bare:
        name = description = "bare"

        def load(self, split: str, limit: int | None) -> list[Question]:
            assert (split, limit) == ("train", None)
            return ask(1, "hard")

    (record,) = load_records(Bare(), None)  # type: ignore[arg-type]
    assert record.question == ask(1, "hard")[0]
    assert record.fields == {
        "id": "q0", "question": "Question 0?", "answer": "answer 0", "level": "hard",
    }  # fmt: skip


def test_other_packages_add_sets_but_replace_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text(
        "from rsearch_cli.questions.sets import FileQuestionSet\n"
        "def open_mine(recipe, seed):\n"
        "    return FileQuestionSet('mine', f'{recipe.source} {seed}', {})\n"
    )
    metadata = tmp_path / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[rsearch.question_sets]\nmine = plugin:open_mine\nworld = plugin:open_mine\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_question_set(QuestionsConfig(source="mine"), seed=3).description == "mine 3"
    assert open_question_set(QuestionsConfig(source="world"), seed=3).name == "world"


def test_a_file_set_loads_in_order_up_to_the_limit() -> None:
    opened = FileQuestionSet("mine", "", {"train": ask(5)})
    assert ids(opened.load("train", 2)) == ["q0", "q1"]
    assert ids(opened.load("train", None)) == ids(opened.load("train", 99)) == ids(ask(5))


def test_an_unknown_split_names_those_there_are() -> None:
    opened = FileQuestionSet("mine", "", {"train": ask(1), "dev": ask(1)})
    with pytest.raises(
        DataError, match=r"^mine has no split 'test'; it has train, dev: choose one with "
    ):
        opened.load("test", None)


def test_an_empty_split_is_explained() -> None:
    opened = FileQuestionSet("mine", "", assign_splits(ask(1), holding_out(0.5), seed=1))
    assert ids(opened.load("train", None)) == ["q0"]
    with pytest.raises(DataEmpty, match=r"^mine: split 'test' is empty because the file has"):
        opened.load("test", None)


def test_a_missing_corpus_comes_with_a_remedy() -> None:
    with pytest.raises(DataError, match=r"^mine has no corpus; set search\.sources\.<name>\.cor"):
        FileQuestionSet("mine", "", {}).corpus()


def test_a_corpus_can_be_read_twice() -> None:
    opened = FileQuestionSet("mine", "", {}, [Passage("a", "A", "text")])
    assert list(opened.corpus()) == list(opened.corpus()) == [Passage("a", "A", "text")]


def test_splits_share_nothing_and_keep_the_order() -> None:
    questions = ask(1000)
    splits = assign_splits(questions, holding_out(0.2), seed=1)
    assert splits["test"] == splits["validation"]
    assert sorted(ids(splits["train"] + splits["test"])) == sorted(ids(questions))
    assert all(split == [q for q in questions if q in split] for split in splits.values())
    assert 150 <= len(splits["test"]) <= 250


def test_splits_depend_on_seed_and_id_alone() -> None:
    questions = ask(100)
    config = holding_out(0.3)
    held_out = ids(assign_splits(questions, config, seed=1)["test"])
    assert held_out != ids(assign_splits(questions, config, seed=2)["test"])
    more = [*ask(100), Question("new", "?", ("x",))][::-1]
    grown = assign_splits(more, config, seed=1)["test"]
    assert set(held_out) == set(ids(grown)) - {"new"}


@pytest.mark.parametrize("share", [1e-9, 0.5, 1 - 1e-9])
def test_two_questions_go_to_both_sides(share: float) -> None:
    for seed in range(20):
        splits = assign_splits(ask(2), holding_out(share), seed)
        assert len(splits["train"]) == len(splits["validation"]) == 1


def test_levels_are_filtered() -> None:
    questions = ask(2, "easy") + ask(3, "hard") + ask(1)
    assert keep_levels(questions, None, "mine") == questions
    assert keep_levels(questions, ["hard", "medium"], "mine") == ask(3, "hard")


def test_a_filter_on_questions_without_levels_comes_with_a_remedy() -> None:
    with pytest.raises(DataEmpty, match=r"has no level \(3\): keep all with questions\.diff"):
        keep_levels(ask(3), ["hard"], "f.json")


def test_a_filter_that_leaves_nothing_counts_what_there_is() -> None:
    with pytest.raises(DataEmpty) as caught:
        keep_levels(ask(3, "hard") + ask(1), ["easy", "medium"], "f.json")
    assert str(caught.value) == (
        "f.json: no question has questions.difficulty easy, medium; "
        "it has hard (3), no level (1): choose an existing level, or keep all with "
        "questions.difficulty=null"
    )


def test_no_supporting_title_is_on_both_sides() -> None:
    pairs = [(n, n + 1) for n in range(0, 120, 3)] + [(1, 3), (4, 6), (90, 91)]
    questions = [
        Question(f"q{i}", f"Question {i}?", ("x",), supporting_titles=tuple(map(str, pair)))
        for i, pair in enumerate(pairs)
    ]
    sides = [
        ids(assign_splits(questions, holding_out(0.4, "titles"), 1)[s]) for s in ("train", "test")
    ]
    titles = [
        {title for q in questions if q.id in side for title in q.supporting_titles}
        for side in sides
    ]
    assert titles[0].isdisjoint(titles[1])
    assert len(sides[0]) + len(sides[1]) == len(questions) and 8 < len(sides[1]) < 30
    # The questions 0, 1 and 2 are joined by 40 and 41; singly, they are not on the same side.
    joined = {"q0", "q1", "q2", "q40", "q41"}
    assert joined <= set(sides[0]) or joined <= set(sides[1])


def test_without_titles_questions_are_held_out_singly() -> None:
    by_titles, by_question = (
        assign_splits(ask(50), holding_out(0.3, by), seed=1) for by in ("titles", "question")
    )
    assert by_titles == by_question
