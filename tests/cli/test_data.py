"""`rsearch data`: its output, its report, and every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.questions.sets import load_records, open_question_set
from rsearch_cli.recipe.schema import QuestionsConfig


def call(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def report(*arguments: object) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "question": f"What is {name}?", "answer": name} | fields


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_hotpotqa_loses_nothing_in_any_format(
    ending: str, hotpot_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"out.{ending}"
    told = report("--source", "hotpotqa", "--path", hotpot_file, "--output", output)
    assert (told["written"], told["split"], told["by_level"]) == (60, None, {"hard": 60})
    sets = [
        open_question_set(QuestionsConfig(path=str(path)), 42) for path in (hotpot_file, output)
    ]
    before, after = (load_records(opened, None) for opened in sets)
    assert [r.question for r in after] == [r.question for r in before]
    assert [dict(r.fields) for r in after] == [dict(r.fields) for r in before]
    assert list(sets[0].corpus()) == list(sets[1].corpus())


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_the_world_is_read_back_by_custom(ending: str, tmp_path: Path) -> None:
    output, corpus = tmp_path / f"world.{ending}", tmp_path / "corpus.jsonl"
    arguments = ["--source", "world", "--difficulty", "hard", "--difficulty", "medium"]
    told = report(*arguments, "--max-samples", 30, "--corpus", corpus, "--output", output)
    assert told["written"] == 30 and set(told["by_level"]) == {"hard", "medium"}
    assert told["leaks"]["checked"] == ["validation", "test"]
    assert told["corpus"]["passages"] == len(corpus.read_text().splitlines()) > 1000
    custom = open_question_set(QuestionsConfig(source="custom", path=str(output)), 42)
    originals = {
        q.id: q for q in open_question_set(QuestionsConfig(source="world"), 42).load("train", None)
    }
    for record in load_records(custom, None):
        original = originals[record.question.id]
        assert record.question.supporting_titles == original.supporting_titles
        assert record.question.answers == original.answers
        assert json.dumps(record.question.metadata) == json.dumps(original.metadata)


def test_custom_fields_go_through_to_the_output(tmp_path: Path) -> None:
    rows = [row("a", answer=["x", "y"], origin={"page": 3}), {"question": "Who?", "answer": "z"}]
    source, output = write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl"
    report("--source", "custom", "--path", source, "--output", output)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert lines == [rows[0], {"id": "line-2", **rows[1]}]


def test_removed_and_missing_questions_are_reported(tmp_path: Path) -> None:
    rows = [row("a"), row("b", question="what is A"), row("c"), row("d", question="WHAT is c??")]
    source = write(tmp_path / "in.jsonl", *rows, row("e"))
    other = write(tmp_path / "other.jsonl", {"question": "What is e?"})
    arguments = ["--source", "custom", "--path", source, "--against", other]
    result = call(*arguments, "--max-samples", 9, "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"2 questions written to {tmp_path / 'out.jsonl'}",
        f"from    questions from {source}, all splits",
        "types   2 not given",
        "levels  2 not given",
        f"none of them occurs in {other}",
    ]
    assert result.stderr.splitlines() == [
        "warning: only 2 of 9 requested questions are available",
        "2 duplicates removed, 2 of them with a different answer: b (same as a), d (same as c)",
        f"1 leaked questions removed: e (same as {other} line 1)",
    ]
    told = report(*arguments, "--max-samples", 9, "--output", tmp_path / "out.jsonl")
    assert (told["asked"], told["written"], told["missing"], told["available"]) == (9, 2, 7, 2)
    assert told["duplicates"] == {
        "removed": 2,
        "examples": [{"id": "b", "same_as": "a"}, {"id": "d", "same_as": "c"}],
        "answers_differ": 2,
    }
    assert told["leaks"]["removed"] == 1


def test_a_missing_leak_check_is_a_warning(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", row("a"))
    result = call("--source", "custom", "--path", source, "--output", tmp_path / "out.json")
    assert result.stderr == (
        "warning: not checked for leaks: there is no other split and no --against file\n"
    )


def test_a_local_folder_of_flashrag(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("dev", "c")):
        with (tmp_path / f"{split}.jsonl").open("a") as file:
            fields = {"id": name, "question": "Same?" if name != "a" else "Other?"}
            file.write(json.dumps(fields | {"golden_answers": ["x", "y"]}) + "\n")
    output = tmp_path / "out.jsonl"
    told = report("--source", "flashrag:popqa", "--path", tmp_path, "--output", output)
    assert (told["split"], told["written"], told["leaks"]["removed"]) == ("train", 1, 1)
    assert json.loads(output.read_text()) == {"id": "a", "question": "Other?", "answer": ["x", "y"]}


def test_the_example_in_the_help_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = "rsearch data --source world --split train --max-samples 100 --output train.jsonl"
    assert example in " ".join(call("--help").stdout.replace("│", " ").split())
    monkeypatch.chdir(tmp_path)
    assert report(*example.split()[2:])["written"] == 100
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("rows", "arguments", "code", "message"),
    [
        (None, [], 21, "in.jsonl does not exist; name a file of questions"),
        ([], [], 23, "in.jsonl has no rows; expected JSONL"),
        (
            [row("a"), {"id": "q9", "question": "Who?"}],
            [],
            22,
            "in.jsonl, line 2 (id \"q9\"): 'answer' is missing",
        ),
        (
            [row("a", level="hard"), row("b")],
            ["--difficulty", "easy"],
            23,
            "no question has questions.difficulty easy; it has hard (1), no level (1)",
        ),
        (
            [row("a", split="train")],
            ["--split", "test"],
            20,
            "in.jsonl has no split 'test'; it has train",
        ),
    ],
)
def test_bad_data_is_one_line_and_nothing_is_written(
    rows: list[dict[str, Any]] | None,
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    if rows is not None:
        write(source, *rows)
    result = call("--source", "custom", "--path", source, *arguments, "--output", output)
    assert result.exit_code == code
    assert result.stderr.startswith("rsearch: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "world", "--output", "out.csv"], "out.csv must end in .json, .jsonl, .parq"),
        (["--source", "custom", "--output", "out.json"], "--source custom needs --data-path FILE"),
        (
            ["--source", "world", "--output", "out.json", "--max-samples", "0"],
            "should be greater than or eq",
        ),
        (["--source", "world", "--output", "out.json", "--difficulty", "odd"], "'odd' is not one"),
    ],
)
def test_bad_arguments_are_a_usage_error(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_an_unknown_source_gets_the_nearest_name(tmp_path: Path) -> None:
    result = call("--source", "hotpot", "--output", tmp_path / "out.json")
    assert (result.exit_code, "did you mean 'hotpotqa'?" in result.stderr) == (13, True)
