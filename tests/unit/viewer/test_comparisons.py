"""Which predictions are compared, and over which questions."""

from __future__ import annotations

from stored_rows import prediction

from rsearch_cli.runs.jsonl import append_rows
from rsearch_cli.viewer import comparisons
from rsearch_cli.viewer.collection import Collection


def compared(*folders) -> list[dict]:
    collection = Collection(folders)
    collection.refresh()
    return collection.index()["comparisons"]


def sides(comparison: dict) -> list[tuple[int, str]]:
    return [(comparison[k]["source"], comparison[k]["phase"]) for k in ("first", "second")]


def test_before_and_after_of_a_run(make_run):
    folder = make_run(
        before_greedy=[prediction("a", 0.0), prediction("b")],
        after_greedy=[prediction("a"), prediction("b", 0.0)],
    )
    (found,) = compared(folder)
    assert sides(found) == [(0, "before-greedy"), (0, "after-greedy")]
    assert [flip["id"] for flip in found["gained"]] == ["a"]
    assert [flip["id"] for flip in found["lost"]] == ["b"]
    assert found["metrics"]["em"]["difference"] == 0.0


def test_two_sources_over_the_questions_that_both_have(make_run, make_evaluation):
    run = make_run(after_greedy=[prediction(id) for id in "abcd"])
    rows = [prediction(id, 0.0) for id in "bce"] + [prediction("b", method="direct")]
    (of_methods, between) = compared(run, make_evaluation(rows))
    assert sides(of_methods) == [(1, "direct"), (1, "rsearch")]
    assert of_methods["only_second"] == 2
    assert sides(between) == [(0, "after-greedy"), (1, "rsearch")]
    assert (between["n"], between["only_first"], between["only_second"]) == (2, 2, 1)
    assert len(between["lost"]) == 2


def test_a_question_with_other_references_or_twice_the_same_id_is_not_matched(make_evaluation):
    first = make_evaluation([prediction("a"), prediction("b"), prediction("b"), prediction("c")])
    second = make_evaluation(
        [prediction("a", references=["Milan"]), prediction("b"), prediction("c")], "second"
    )
    (found,) = compared(first, second)
    assert (found["n"], found["only_first"], found["only_second"]) == (1, 1, 2)


def test_samples_of_a_question_are_compared_as_one(make_evaluation):
    first = [prediction("a", sample=0), prediction("a", 0.0, sample=1)]
    (found,) = compared(make_evaluation(first), make_evaluation([prediction("a", 0.0)], "second"))
    assert (found["n"], found["metrics"]["em"]["difference"]) == (1, -0.5)


def test_nothing_in_common_is_no_comparison(make_evaluation):
    assert (
        compared(make_evaluation([prediction("a")]), make_evaluation([prediction("b")], "x")) == []
    )


def test_only_what_has_changed_is_compared_again(make_run, make_evaluation, monkeypatch):
    run = make_run(before_greedy=[prediction("a")], after_greedy=[prediction("a")])
    evaluation = make_evaluation([prediction("a")])
    collection = Collection([run, evaluation])
    calls = []
    compare = comparisons.compare
    monkeypatch.setattr(comparisons, "compare", lambda *sides: calls.append(1) or compare(*sides))
    for expected in (2, 2):
        collection.refresh()
        assert len(collection.index()["comparisons"]) == 2
        assert len(calls) == expected
    append_rows(evaluation / "predictions.jsonl", [prediction("b")])
    collection.refresh()
    assert collection.index()["comparisons"][1]["only_second"] == 1
    assert len(calls) == 3


def test_long_answers_are_shortened_in_the_lists_of_flips(make_run):
    (found,) = compared(
        make_run(
            before_greedy=[prediction("a", 0.0, answer="x" * 5000)], after_greedy=[prediction("a")]
        )
    )
    assert len(found["gained"][0]["first"]) < 1100


def test_folders_of_one_name_are_numbered(make_run):
    folders = [make_run([], name) for name in ("a/run", "b/run")]
    assert [source.name for source in Collection(folders).sources] == ["run", "run (2)"]
