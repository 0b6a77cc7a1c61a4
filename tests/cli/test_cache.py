from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rsearch_cli.app import app
from rsearch_cli.services.cache import AnswerCache, make_key

EXA = make_key("exa", query="Port Ellow")
JUDGE = make_key("judge", question="Who founded it?")


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
        cache.put(EXA, ["a passage"], ttl_seconds=60.0, usd=0.005)
        cache.put(make_key("exa", query="Marrowgate"), [], usd=0.005)
        cache.put(JUDGE, "0.75", usd=0.0001)
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
        assert (cache.get(EXA), cache.get(JUDGE)) == (["a passage"], "0.75")
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_export_of_one_service(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("an old export\n")
    run_well("export", file, "--service", "judge")
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row == {
        "key": JUDGE, "version": 1, "stored": 1.7e9, "ttl": None, "usd": 0.0001, "value": "0.75"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "row 1 is no answer that was exported ('key'); nothing was imported"),
        ("{\n", "line 1 is not JSON (Expecting property name enclosed in double quotes"),
    ],
)
def test_a_file_with_a_wrong_line_is_not_imported(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(text)
    result = run("import", file)
    assert result.exit_code == 22
    assert result.stderr.startswith(f"rsearch: {file}: {message}")
    assert result.stderr.endswith("nothing was imported\n")
    assert json.loads(run_well("stats", "--json"))["answers"] == 3


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
        f"rsearch: the answer cache {blocked / 'answers'} cannot be used; name another "
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
