from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsearch_cli.errors import DataEmpty, DataNotFound
from rsearch_cli.questions.building import Selection, select_questions
from rsearch_cli.questions.deduplication import Removal
from rsearch_cli.questions.sets import FileQuestionSet
from rsearch_cli.types import Question


def ask(name: str, text: str = "", level: str = "easy") -> Question:
    return Question(name, text or f"What is {name}?", ("x",), level=level)


def build(
    splits: dict[str, list[Question]], split: str | None = "train", **changes: object
) -> Selection:
    settings = {"levels": None, "limit": None, "seed": 1, "against": None} | changes
    return select_questions(FileQuestionSet("mine", "mine", splits), split, **settings)  # type: ignore[arg-type]


def ids(built: Selection) -> list[str]:
    return [record.question.id for record in built.records]


def test_a_leak_is_taken_out_of_the_side_that_is_written() -> None:
    splits = {
        "train": [ask("a"), ask("b", "Who?"), ask("e")],
        "validation": [ask("c", "who"), ask("f")],
        "test": [ask("d", "What is a ?")],
    }
    built = build(splits)
    assert ids(built) == ["e"]
    assert built.leaks == [Removal("a", "test d"), Removal("b", "validation c")]
    assert built.checked == ["validation", "test"]
    held_out = build(splits, "validation")
    assert (held_out.leaks, held_out.checked) == ([Removal("c", "train b")], ["train"])


def test_test_and_validation_may_be_the_same() -> None:
    held_out = [ask("v")]
    built = build({"train": [ask("t")], "validation": held_out, "test": held_out}, "test")
    assert (ids(built), built.leaks) == (["v"], [])


def test_a_whole_file_has_no_other_side() -> None:
    built = build({"train": [ask("a")], "validation": [ask("b")]}, None)
    assert (ids(built), built.checked) == (["a", "b"], [])


def test_another_file_is_kept_clear_of(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"question": f"what is {n}"}) for n in "xbc"))
    built = build({"train": [ask("a"), ask("b")]}, against=other)
    assert built.leaks == [Removal("b", f"{other} line 2")]
    assert (ids(built), built.checked) == (["a"], [str(other)])


def test_a_sample_is_of_distinct_questions_and_follows_the_seed() -> None:
    train = [ask(str(n)) for n in range(50)] + [ask("again", "What is 3?")]
    built = build({"train": train}, limit=20)
    assert built.duplicates == [Removal("again", "3")]
    assert (len(built.records), built.available) == (20, 50)
    assert ids(built) == sorted(ids(built), key=int)
    assert ids(built) == ids(build({"train": train}, limit=20))
    assert ids(built) != ids(build({"train": train}, limit=20, seed=2))
    assert len(ids(build({"train": train}, limit=99))) == 50


def test_levels_are_kept_before_anything_is_counted() -> None:
    train = [ask("a", "Who?"), ask("b", "Who?", "hard")]
    built = build({"train": train}, levels=["hard"])
    assert (ids(built), built.duplicates) == (["b"], [])
    with pytest.raises(
        DataEmpty, match=r"medium; it has easy \(1\), hard \(1\): choose an existing level"
    ):
        build({"train": train}, levels=["medium"])


def test_an_empty_result_is_an_error() -> None:
    splits = {"train": [ask("a")], "validation": [ask("b", "what is a")]}
    with pytest.raises(DataEmpty) as caught:
        build(splits)
    assert str(caught.value) == (
        "mine: all 1 questions also occur in validation; use another split or another --against"
    )


def test_an_unreadable_split_is_reported() -> None:
    class Torn(FileQuestionSet):
        def load(self, split: str, limit: int | None) -> list[Question]:
            if split == "validation":
                raise DataNotFound("the Hub is away")
            return super().load(split, limit)

    built = select_questions(
        Torn("mine", "mine", {"train": [ask("a")]}), "train", None, None, 1, None
    )
    assert (built.checked, built.unchecked) == ([], ["validation (the Hub is away)"])
