from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.search.cache_entries import encode_passages, request_key
from rsearch_cli.search.sources import SearchRequest
from rsearch_cli.services.cache import AnswerCache, make_key
from rsearch_cli.types import Passage

EXA = request_key("exa/v2/https://api.exa.ai/{}", SearchRequest("Port Ellow"))
JUDGE = make_key("judge", question="Who founded it?", mode="continuous", references=["Ada"])
POLICY = make_key("policy", model="m", messages=[])
PASSAGES = encode_passages([Passage("https://a.example/1", "Port Ellow", "A harbour.")], 3)
VERDICT = '{"score": 0.75}'
REPLY = {"text": "So.", "finish": "stop", "stop_string": None, "tokens": 2, "seconds": 0.5}


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["cache", *map(str, arguments)])


def run_well(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder that the environment names, with three answers."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RSEARCH_CACHE_DIR", str(folder))
    with AnswerCache(clock=lambda: 1.7e9) as cache:
        cache.put(EXA, PASSAGES, ttl_seconds=60.0, usd=0.005)
        cache.put(EXA.replace("Port Ellow", "Marrowgate"), [], usd=0.005)
        cache.put(JUDGE, VERDICT, usd=0.0001)
    return folder


def test_stats_as_a_table(folder: Path) -> None:
    heading, exa, judge, _, total, *rest = run_well("stats").splitlines()
    assert re.split(" {2,}", heading.strip()) == [
        "SERVICE", "ANSWERS", "EXPIRED", "USD", "OLDEST (UTC)", "NEWEST (UTC)"
    ]  # fmt: skip
    time = ["2023-11-14", "22:13"]
    assert exa.split() == ["exa", "2", "1", "0.0100", *time, *time]
    assert judge.split() == ["judge", "1", "0", "0.0001", *time, *time]
    assert len(heading) <= 80
    assert total.startswith("3 answers, ")
    assert total.endswith(f" MiB, in {folder / 'answers'}")
    assert rest == []


def test_stats_as_json(folder: Path) -> None:
    stats = json.loads(run_well("stats", "--json"))
    assert set(stats) == {"folder", "bytes", "answers", "usd", "services"}
    assert stats["bytes"] > 0
    assert (stats["folder"], stats["answers"]) == (str(folder / "answers"), 3)
    assert stats["usd"] == 0.0101
    assert stats["services"]["exa"] == {
        "answers": 2,
        "expired": 1,
        "usd": 0.01,
        "oldest": "2023-11-14T22:13:20+00:00",
        "newest": "2023-11-14T22:13:20+00:00",
    }


def test_an_empty_cache_has_stats_too(tmp_path: Path) -> None:
    stats = json.loads(run_well("stats", "--json", "--cache-dir", tmp_path))
    assert (stats["answers"], stats["services"]) == (0, {})


def test_clear_one_service_and_all(folder: Path) -> None:
    assert run_well("clear", "--service", "judge") == "removed 1 answer\n"
    assert json.loads(run_well("clear", "--json")) == {"removed": 2}
    assert json.loads(run_well("stats", "--json"))["answers"] == 0


def test_what_one_machine_exports_another_one_replays(folder: Path, tmp_path: Path) -> None:
    file, again, other = tmp_path / "answers.jsonl", tmp_path / "again.jsonl", tmp_path / "other"
    assert run_well("export", file) == f"exported 3 answers to {file}\n"
    assert run_well("import", file, "--cache-dir", other) == "imported 3 answers\n"
    exported = run_well("export", again, "--cache-dir", other, "--json")
    assert json.loads(exported) == {"exported": 3, "file": str(again)}
    assert again.read_bytes() == file.read_bytes()
    with AnswerCache(other / "answers", "offline") as cache:
        assert (cache.get(EXA), cache.get(JUDGE)) == (PASSAGES, VERDICT)
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_export_of_one_service(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("an old export\n")
    run_well("export", file, "--service", "judge")
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row == {
        "key": JUDGE, "version": 1, "stored": 1.7e9, "ttl": None, "usd": 0.0001, "value": VERDICT
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "row 4 is not an exported answer (no object with a key)"),
        ("{", "line 4 is not JSON (Expecting property name enclosed in double quotes"),
        ("", "line 4 is not JSON (Expecting value"),
        ("[" * 100_000, "line 4 is not JSON (it is nested too deeply)"),
        ('{"a": NaN}', "line 4 is not JSON (it holds NaN, which is not a number)"),
        ('{"key": "a", "key": "b"}', "line 4 is not JSON (it gives a field twice)"),
        ("x" * 2000, "line 4 has more than 1000 characters"),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_with_a_wrong_line_is_not_imported(
    folder: Path, tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "1000 characters" in message:
        monkeypatch.setattr("rsearch_cli.workflows.cache.LINE_CHARS", 1000)
    file, other = tmp_path / "answers.jsonl", tmp_path / "other"
    run_well("export", file)
    with file.open("a") as lines:
        lines.write(text + "\n")
    result = run("import", file, "--cache-dir", other)
    assert result.exit_code == 22
    assert result.stderr.startswith(f"rsearch: {file}: {message}")
    assert result.stderr.endswith("nothing was imported\n")
    assert result.stderr.count("\n") == 1
    assert json.loads(run_well("stats", "--json", "--cache-dir", other))["answers"] == 0


GOOD = {"version": 1, "stored": 1.7e9, "ttl": None, "usd": 0.001}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (EXA, [PASSAGES[0] | {"title": 5}], "the title of a passage is int 5"),
        (EXA, [PASSAGES[0] | {"title": None}], "the title of a passage is NoneType None"),
        (EXA, [PASSAGES[0] | {"id": "\ud800"}], "a passage holds text that cannot be stored"),
        (EXA, [PASSAGES[0] | {"score": "high"}], "the score of a passage is str 'high'"),
        (EXA, PASSAGES * 4, "not a list of at most 3 passages"),
        (EXA, ["a passage"], "a passage does not have the fields of one"),
        (EXA, VERDICT, "not a list of at most 3 passages"),
        (EXA.replace('"top_k":3', '"top_k":"3"'), PASSAGES, "its key lacks a part or has a wrong"),
        (
            make_key("judge", question="q"),
            VERDICT,
            "its key lacks a part or has a wrong one: 'mode'",
        ),
        (JUDGE, '{"score": 7}', "its score 7 is not a number from 0 to 1"),
        (JUDGE, 0.75, "it is not text"),
        (JUDGE.replace("continuous", "poetic"), VERDICT, "its key lacks a part or has a wrong one"),
        (make_key("dialogue", messages=[]), ["Who?"], "it is not text"),
        (POLICY, REPLY | {"text": 5}, "a reply of a model lacks a part"),
        (POLICY, REPLY | {"tokens": -1}, "a reply of a model has -1 tokens"),
        (POLICY, VERDICT, "not the reply of a model"),
    ],
)
def test_an_answer_that_is_not_what_its_key_asks_for_is_not_imported(
    folder: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    file, other = tmp_path / "answers.jsonl", tmp_path / "other"
    rows = [GOOD | {"key": POLICY, "value": REPLY}, GOOD | {"key": key, "value": value}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("import", file, "--cache-dir", other)
    assert result.exit_code == 22
    assert f"{file}: row 2 is not an exported answer ({message}" in result.stderr
    assert json.loads(run_well("stats", "--json", "--cache-dir", other))["answers"] == 0


def test_what_is_packed_or_cut_off_is_not_imported(folder: Path, tmp_path: Path) -> None:
    file, packed = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.gz"
    run_well("export", file)
    whole = file.read_bytes()
    packed.write_bytes(gzip.compress(whole)[:-20])
    result = run("import", packed)
    assert (result.exit_code, result.stderr) == (
        21,
        f"rsearch: {packed} cannot be read: not UTF-8 text; decompress it first if it is "
        "compressed\n",
    )
    file.write_bytes(whole[:-40])
    result = run("import", file, "--cache-dir", tmp_path / "other")
    assert result.exit_code == 22
    assert "line 3 is not JSON" in result.stderr
    stats = json.loads(run_well("stats", "--json", "--cache-dir", tmp_path / "other"))
    assert stats["answers"] == 0


def test_bad_answers_of_earlier_versions_are_counted_but_not_exported(
    folder: Path, tmp_path: Path
) -> None:
    with AnswerCache(clock=lambda: 1e300) as cache:
        cache._store.put(EXA.replace("Port", "Far"), json.dumps(GOOD | {"stored": 1e300}), "exa")
    with AnswerCache() as cache:
        cache.put(EXA.replace("Port", "Bad"), [{"title": 5}])
    assert json.loads(run("stats", "--json").stdout)["answers"] == 4
    file = tmp_path / "answers.jsonl"
    exported = run("export", file)
    assert (exported.exit_code, exported.stdout) == (0, f"exported 3 answers to {file}\n")
    assert run_well("import", file, "--cache-dir", tmp_path / "other") == "imported 3 answers\n"


def test_files_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    missing = run("import", tmp_path / "no.jsonl")
    assert missing.exit_code == 21
    assert missing.stderr.startswith(f"rsearch: {tmp_path / 'no.jsonl'} cannot be read: ")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert run("import", tmp_path / "binary").exit_code == 21
    unwritable = run("export", tmp_path / "no" / "answers.jsonl")
    assert (unwritable.exit_code, unwritable.stderr) == (
        20,
        f"rsearch: {tmp_path / 'no' / 'answers.jsonl'} cannot be written: "
        "No such file or directory\n",
    )


def test_a_cache_that_cannot_be_used_is_an_error_here(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    result = run("stats", "--cache-dir", blocked)
    assert result.exit_code == 20
    assert result.stderr.endswith(
        f"rsearch: the answer cache {blocked / 'answers'} cannot be used; choose another "
        "--cache-dir\n"
    )


@pytest.mark.parametrize("command", ["stats", "clear", "export", "import"])
def test_the_example_in_each_help_works(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run_well("export", "answers.jsonl")
    (example,) = [
        line.split("rsearch cache ")[1].strip(" │")
        for line in run_well(command, "--help").splitlines()
        if "Example: " in line
    ]
    assert example.split()[0] == command
    run_well(*example.split())
