"""Folders read as columns and parts: what is in them, what they lack, and how they grow."""

from __future__ import annotations

import json
import logging
import os
import shutil

import pytest
from stored_rows import prediction, rollout

from rsearch_cli.errors import RunFolderError
from rsearch_cli.runs.jsonl import append_rows
from rsearch_cli.viewer import source as source_module
from rsearch_cli.viewer.schema import CODED, PLAIN
from rsearch_cli.viewer.source import ViewSource


def opened(folder) -> ViewSource:
    source = ViewSource(folder, folder.name)
    source.refresh()
    return source


def column(source: ViewSource, name: str) -> list:
    rows = source.describe()["rows"]
    values = rows["columns"][name]
    if name not in CODED:
        return values
    texts = rows["dictionaries"][name]
    return [None if value is None else texts[value] for value in values]


@pytest.mark.parametrize(
    ("reward", "highest"),
    [("{}", 1.0), ("{extra: {retrieval: 1.0, no_answer: 0.5}}", 2.0), ("{extra: [1]}", 1.0)],
)
def test_the_highest_reward_is_that_of_the_recipe(make_run, reward, highest):
    folder = make_run([rollout()])
    (folder / "recipe.yaml").write_text(f"reward: {reward}")
    assert opened(folder).describe()["highest"] == highest


def test_rollouts_and_predictions_are_rows_of_one_table(make_run):
    folder = make_run(
        [rollout(1), rollout(1, total=0.5)],
        before_greedy=[prediction(em=0.0)],
        after_greedy=[prediction()],
    )
    source = opened(folder)
    described = source.describe()
    assert described["rows"]["count"] == 4
    assert all(len(described["rows"]["columns"][name]) == 4 for name in (*CODED, *PLAIN))
    assert column(source, "phase") == ["before-greedy", "train", "train", "after-greedy"]
    assert column(source, "step") == [None, 1, 1, None]
    assert column(source, "reward") == [None, 1.0, 0.5, None]
    assert column(source, "em") == [0.0, None, None, 1.0]
    assert column(source, "said") == ["Paris", "Rome", "Rome", "Rome"]
    assert column(source, "tokens") == [35, 35, 35, 35]
    assert column(source, "inserted") == [None, 21, 21, None]
    assert described["rows"]["dictionaries"]["question"] == ["Where was q1 born?"]
    assert described["finished"]


def test_a_detail_has_transcript_plan_and_passages_as_the_model_saw_them(make_run):
    folder = make_run([rollout()], after_greedy=[prediction()])
    trained, predicted = (opened(folder).read_part(number)[0] for number in (0, 1))
    for detail in (trained, predicted):
        (found,) = detail["rounds"]
        assert found["valid"]
        assert found["edges"] == [["A", "B"]]
        assert [node["query"] for node in found["nodes"]] == ["Ada born", "mayor"]
        texts = [[p["text"] for p in result["passages"]] for result in found["results"]]
        assert texts == [["Ada: born in Rome.", "Rome is old."], []]
        assert [s["author"] for s in detail["segments"]][:3] == ["model", "system", "model"]
        assert all(result["error"] is None for result in found["results"])
    ids = [p["id"] for p in trained["rounds"][0]["results"][0]["passages"]]
    assert ids == ["p1", "p2"]
    assert [s["tokens"] for s in trained["segments"]] == [30, 20, 5, 1]
    assert trained["reward"]["total"] == 1.0
    assert predicted["reward"] is None


def test_what_was_trained_on_is_told_apart(make_run):
    folder = make_run([rollout(), rollout(stop="length")], after_greedy=[prediction()])
    path = folder / "recipe.yaml"

    def trained() -> list[bool]:
        source = opened(folder)
        return [d["trained"] for part in range(source.parts) for d in source.read_part(part)]

    assert trained() == [True, True, False]
    path.write_text(path.read_text().replace("train: {", "train: {mask_truncated: true, "))
    assert trained() == [True, False, False]


def test_a_failed_search_and_a_plan_that_is_not_valid_are_shown_as_such(make_evaluation):
    failed = prediction("a", failed_searches=1)
    failed["transcript"] = failed["transcript"].replace("nothing found", "search failed (timeout)")
    cut = failed["inserted"][0]
    failed["inserted"] = [[cut[0], cut[1] + len("search failed (timeout)") - len("nothing found")]]
    broken = prediction("b", plan_valid=0.0)
    broken["transcript"] = broken["transcript"].replace("A -> B", "A -> Z")
    source = opened(make_evaluation([failed, broken]))
    first, second = source.read_part(0)
    assert [r["error"] for r in first["rounds"][0]["results"]] == [None, "timeout"]
    assert not second["rounds"][0]["valid"]
    assert "Z" in second["rounds"][0]["problems"][0]
    assert column(source, "failed") == [1, 0]
    assert column(source, "valid") == [1, 0]


def test_words_of_a_passage_are_no_failure_if_no_search_failed(make_evaluation):
    row = prediction(failed_searches=0)
    row["transcript"] = row["transcript"].replace("nothing found", "search failed (x)")
    row["inserted"] = [[row["inserted"][0][0], row["inserted"][0][1] + 4]]
    (detail,) = opened(make_evaluation([row])).read_part(0)
    result = detail["rounds"][0]["results"][1]
    assert (result["error"], result["passages"][0]["text"]) == (None, "search failed (x)")


def test_a_judges_verdict_is_told_apart_from_a_missing_one(make_evaluation):
    rows = [prediction("a", judge=0.5, judged=True), prediction("b", judged=True), prediction("c")]
    source = opened(make_evaluation(rows))
    assert [d["judge"] for d in source.read_part(0)] == [{"score": 0.5}, {"score": None}, None]
    assert column(source, "unscored") == [0, 1, 0]


def test_an_answer_that_a_server_failed_to_give_has_no_scores(make_evaluation):
    source = opened(make_evaluation([prediction(em=0.0, answer=None, failure="HTTP 500")]))
    assert column(source, "em") == column(source, "valid") == [None]
    assert column(source, "unscored") == [1]
    assert source.read_part(0)[0]["failure"] == "HTTP 500"


def test_parts_have_at_most_so_many_rows_and_bytes(make_run, monkeypatch):
    monkeypatch.setattr(source_module, "PART_ROWS", 3)
    folder = make_run([rollout(step) for step in range(1, 8)], after_greedy=[prediction()])
    source = opened(folder)
    assert source.describe()["parts"] == [
        {"first": 0, "count": 3},
        {"first": 3, "count": 3},
        {"first": 6, "count": 1},
        {"first": 7, "count": 1},
    ]
    assert [len(source.read_part(number)) for number in range(4)] == [3, 3, 1, 1]
    monkeypatch.setattr(source_module, "PART_BYTES", 1)
    assert len(opened(folder).describe()["parts"]) == 8
    with pytest.raises(LookupError):
        source.read_part(4)


def test_damaged_lines_are_left_out_with_one_warning(make_run, caplog):
    folder = make_run([rollout(1)])
    with (folder / "trajectories.jsonl").open("ab") as file:
        file.write(b"{broken\n")
        file.write(b"[1, 2]\n")
        file.write(json.dumps({**rollout(2), "segments": 5}).encode() + b"\n")
        file.write(b"\xff\xfe\n")
        file.write(json.dumps(rollout(3)).encode() + b"\n")
        file.write(json.dumps(rollout(4)).encode()[:50])
    with caplog.at_level(logging.WARNING):
        source = opened(folder)
        source.refresh()
    assert column(source, "step") == [1, 3]
    assert len(source.read_part(0)) == 2
    (warning,) = source.describe()["warnings"]
    assert warning.startswith("trajectories.jsonl, line 2: not a row of rsearch, and 3 more")
    assert len(caplog.records) == 1


def test_a_run_that_grows_is_read_on(make_run):
    folder = make_run([rollout(1)])
    source = opened(folder)
    assert not source.refresh()
    path = folder / "trajectories.jsonl"
    line = json.dumps(rollout(2)).encode() + b"\n"
    with path.open("ab") as file:
        file.write(line[:100])
    assert not source.refresh()
    with path.open("ab") as file:
        file.write(line[100:])
    append_rows(folder / "metrics.jsonl", [{"step": 1, "reward": 0.5, "alarms": ["entropy"]}])
    assert source.refresh()
    assert column(source, "step") == [1, 2]
    described = source.describe()
    assert described["parts"] == [{"first": 0, "count": 2}]
    assert described["curves"]["series"] == {"reward": [0.5]}
    assert described["curves"]["alarms"] == [{"step": 1, "alarms": ["entropy"]}]
    assert described["generation"] == 0


@pytest.mark.parametrize("how", ["cut", "replaced", "removed"])
def test_a_run_whose_rows_were_taken_back_is_read_anew(make_run, how):
    folder = make_run([rollout(step) for step in range(1, 5)])
    source = opened(folder)
    path = folder / "trajectories.jsonl"
    if how == "cut":
        os.truncate(path, len(path.read_bytes().splitlines(keepends=True)[0]))
    else:
        path.unlink()
    if how == "replaced":
        append_rows(path.with_name("new"), [rollout(9), *[rollout(10)] * 5])
        os.replace(path.with_name("new"), path)
    assert source.refresh() is (how != "removed")
    assert column(source, "step") == {"cut": [1], "removed": [], "replaced": [9, *[10] * 5]}[how]
    assert source.describe()["generation"] == 1


def test_a_recipe_that_was_changed_is_read_anew(make_run):
    folder = make_run([rollout()])
    source = opened(folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("num_generations: 2", "num_generations: 1"))
    os.utime(recipe, ns=(1, 1))
    source.refresh()
    assert source.describe()["settings"]["train.num_generations"] == 1
    assert column(source, "step") == [1]


def test_folders_of_earlier_versions_have_null_where_they_store_nothing(tmp_path):
    folder = tmp_path / "old"
    (folder / "predictions").mkdir(parents=True)
    row = rollout()
    for name in ("type", "opening"):
        del row[name]
    del row["reward"]["extra"]
    append_rows(folder / "trajectories.jsonl", [row])
    old = prediction()
    for name in ("inserted", "type"):
        del old[name]
    append_rows(folder / "predictions" / "before-greedy.jsonl", [old])
    source = opened(folder)
    assert source.describe()["warnings"] == []
    assert column(source, "type") == [None, None]
    assert source.describe()["settings"] == {}
    assert not source.describe()["finished"]
    assert "no recipe" in source.describe()["advantages"]
    assert source.read_part(0)[0]["segments"][0]["author"] == "model"


def test_tokens_that_a_server_did_not_list_are_unknown_and_not_zero(make_run):
    row = rollout()
    for segment in row["segments"]:
        segment["tokens"] = 0
    source = opened(make_run([row]))
    assert column(source, "tokens") == column(source, "inserted") == [None]


def test_neither_run_nor_evaluation(tmp_path):
    with pytest.raises(RunFolderError, match="neither a run nor an evaluation"):
        ViewSource(tmp_path, "x")
    with pytest.raises(RunFolderError, match="No such file or directory"):
        ViewSource(tmp_path / "nothing", "x")


def test_links_out_of_the_folder_are_not_followed(make_run, tmp_path):
    folder = make_run([rollout()])
    shutil.move(folder / "trajectories.jsonl", tmp_path / "elsewhere")
    (folder / "trajectories.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="is a link"):
        opened(folder)


def test_nothing_but_the_folders_name_tells_where_it_was(make_run):
    row = rollout()
    row["rounds"][0]["results"][1]["error"] = "no index in /home/ada/cache/index-1"
    folder = make_run([row], after_greedy=[prediction(failure="cannot read /home/ada/key.txt")])
    source = opened(folder)
    text = json.dumps([source.describe(), source.read_part(0), source.read_part(1)])
    assert "ada" not in text.lower().replace("ada: born", "").replace("ada born", "")
    assert str(folder.parent) not in text
    settings = source.describe()["settings"]
    assert settings["policy.model"] == source.describe()["summary"]["model"] == "seven-b"
    assert settings["questions.path"] == "questions.jsonl"
    assert settings["policy.endpoint.url"] == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": {"a": 1}},
        {"step": "one"},
        {"question": None},
        {"reward": []},
        {"reward": {"total": 1}, "segments": [{"author": "Eve", "text": "x"}]},
        {"stop": 3},
        {"answers": "Rome"},
        {"type": ["bridge"]},
        {"rounds": [{"problems": [], "edges": ["A"], "results": []}]},
        {"rounds": [{"problems": [], "edges": [], "results": [{"label": 1}]}]},
        {"rounds": 7},
    ],
)
def test_a_row_with_fields_of_other_kinds_is_left_out(make_run, changes):
    source = opened(make_run([rollout(1), {**rollout(2), **changes}, rollout(3)]))
    steps = column(source, "step")
    assert [step for step in steps if step] in ([1, 3], [1, 2, 3])
    assert len(source.read_part(0)) == len(steps)
    assert len(steps) == 3 or len(source.describe()["warnings"]) == 1


@pytest.mark.parametrize(
    "changes", [{"method": ["a"]}, {"id": 5}, {"text": None}, {"references": [1]}, {"em": "1"}]
)
def test_a_prediction_with_fields_of_other_kinds_is_left_out(make_evaluation, changes):
    source = opened(make_evaluation([prediction("a"), {**prediction("b"), **changes}]))
    assert column(source, "id") == ["a"]
    assert len(source.describe()["warnings"]) == 1


@pytest.mark.parametrize("number", ["1e400", "NaN", "1" + "0" * 400, "-Infinity"])
def test_numbers_beyond_json_are_null(make_run, number):
    folder = make_run([])
    text = json.dumps(rollout()).replace('"total": 1.0', f'"total": {number}')
    (folder / "trajectories.jsonl").write_text(text + "\n")
    (folder / "metrics.jsonl").write_text(f'{{"step": 1, "reward": {number}, "loss": 1}}\n')
    source = opened(folder)
    assert column(source, "reward") == [None]
    assert source.describe()["curves"]["series"] == {"loss": [1.0]}
    json.dumps([source.describe(), source.read_part(0)], allow_nan=False)


def test_a_recipe_that_cannot_be_read_is_a_warning(make_run):
    folder = make_run([rollout()])
    (folder / "recipe.yaml").write_text("a: &a [1, 2]\nb: &b [*a, *a]\n" + "c: [\n")
    source = opened(folder)
    assert column(source, "step") == [1]
    assert len(source.describe()["warnings"]) == 1
    (folder / "recipe.yaml").write_text("when: 2026-01-01\n")
    json.dumps(opened(folder).describe())


def test_long_questions_and_answers_are_shortened_in_the_index_only(make_run):
    long = "x" * 5000
    source = opened(make_run([rollout(answer=long)]))
    assert len(column(source, "said")[0]) < 1100
    assert source.read_part(0)[0]["answer"] == long
