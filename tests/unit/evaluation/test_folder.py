"""The folder of an evaluation: going on, starting anew, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rsearch_cli.errors import (
    DataMalformed,
    RunFolderError,
    RunFolderOccupied,
    RunFolderUnwritable,
    RunUnsaved,
)
from rsearch_cli.evaluation.folder import EvaluationFolder, whole_batches
from rsearch_cli.runs.files import ANSWERS

SETTINGS = {"version": 1, "recipe": {"search": {"top_k": 3}}, "methods": ["rsearch"]}


@pytest.fixture
def folder(tmp_path):
    folder = EvaluationFolder(tmp_path / "e")
    with folder.locked():
        folder.begin(SETTINGS, "purpose: x\n")
    return folder


def test_rows_are_read_back_and_one_that_was_cut_short_is_left_out(folder, result):
    rows = [result("a", answer="É"), result("b")]
    folder.append(rows)
    path = folder.path / ANSWERS
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert folder.read_records() == rows[: whole[:end].count(b"\n")]


def test_keeping_rows_drops_all_others(folder, result):
    folder.append([result("a"), result("b")])
    folder.keep([result("b")])
    folder.append([result("c")])
    assert [r.id for r in folder.read_records()] == ["b", "c"]


def test_a_row_that_is_none_is_named(folder, result):
    folder.append([result("a")])
    with (folder.path / ANSWERS).open("a") as file:
        file.write("{oops}\n")
    with pytest.raises(DataMalformed, match=r"predictions.jsonl, line 2: .*--overwrite"):
        folder.read_records()


def test_other_settings_are_refused_by_name(folder):
    other = {**SETTINGS, "recipe": {"search": {"top_k": 5}}}
    with pytest.raises(RunFolderError, match=r"with recipe.search.top_k = 3, and this one has 5; "):
        folder.begin(other, "")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Refuse what goes beyond `size` bytes, in the way of a disk that fills up."""
    resource = pytest.importorskip("resource", reason="limits need POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_that_the_disk_does_not_hold_leave_those_before_them(folder, result):
    folder.append([result("a")])
    size = (folder.path / ANSWERS).stat().st_size
    line = rf"^{ANSWERS} could not be written in {folder.path}: File too large \(.* MB are free"
    line += r"\); make room, then the same command without --overwrite goes on from the answers "
    with pytest.raises(RunUnsaved, match=line + "that are there$"), largest_file(size + 200):
        folder.append([result("b")])
    folder.append([result("c")])
    assert [r.id for r in folder.read_records()] == ["a", "c"]


def test_a_file_that_the_disk_does_not_hold_leaves_the_old_one_and_no_other(folder, result):
    folder.keep([result("a")])
    before = sorted(folder.path.iterdir())
    with pytest.raises(RunUnsaved, match=f"^{ANSWERS} could not"), largest_file(100):
        folder.keep([result("b")])
    assert [r.id for r in folder.read_records()] == ["a"]
    assert sorted(folder.path.iterdir()) == before


def test_a_kill_before_the_first_file_does_not_occupy_the_folder(tmp_path):
    folder = EvaluationFolder(tmp_path)
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "recipe.yaml").write_text("purp")
    folder.check()
    with folder.locked():
        folder.begin(SETTINGS, "purpose: x\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evaluation.json", "recipe.yaml"]


def test_starting_anew_removes_what_was_there(folder, result):
    folder.append([result("a")])
    (folder.path / "spend.json").write_text("{}")
    with folder.locked(overwrite=True):
        assert not (folder.path / "spend.json").exists() and folder.holds_evaluation
        folder.begin({**SETTINGS, "methods": ["rag"]}, "", overwrite=True)
    assert folder.read_records() == []
    assert folder.read_settings()["methods"] == ["rag"]


def test_two_processes_do_not_write_into_one_folder(folder):
    with (
        folder.locked(),
        pytest.raises(RunFolderOccupied, match="another process is evaluating into"),
        EvaluationFolder(folder.path).locked(),
    ):
        pass


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunFolderOccupied, match=r"that are no evaluation, such as mine\.txt"):
        EvaluationFolder(tmp_path).check()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderUnwritable, match="is a file; choose another with --output-dir"):
        EvaluationFolder(tmp_path / "file").check()


def test_a_folder_without_an_evaluation_says_how_to_make_one(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no evaluation .* rsearch eval --output-dir"):
        EvaluationFolder(tmp_path).read_settings()


@pytest.mark.parametrize(
    ("stored", "rows", "batches"),
    [
        ("", 0, 0),
        ("a", 0, 0),
        ("ab", 2, 1),
        ("abc", 3, 2),
        ("abcx", 3, 2),
        ("abca", 3, 2),
        ("abcab", 5, 3),
        ("ba", 0, 0),
    ],
)
def test_only_whole_batches_are_gone_on_from(result, stored, rows, batches):
    plan = [("rsearch", "ab"), ("rsearch", "c"), ("rag", "ab")]
    methods = ["rsearch"] * 3 + ["rag"] * 2
    records = [result(id, method=m) for id, m in zip(stored, methods, strict=False)]
    assert whole_batches(records, plan) == (records[:rows], batches)
