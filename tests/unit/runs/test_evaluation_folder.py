"""The folder of an evaluation: continuing, starting over, and what is refused."""

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
from rsearch_cli.runs.evaluation_folder import EvaluationFolder, setting_differences
from rsearch_cli.runs.files import ANSWERS

SETTINGS = {"version": 1, "recipe": {"search": {"top_k": 3}}, "methods": ["rsearch"]}


@pytest.fixture
def folder(tmp_path):
    folder = EvaluationFolder(tmp_path / "e")
    with folder.locked():
        folder.begin(SETTINGS, "purpose: x\n")
    return folder


def ids(folder: EvaluationFolder) -> list[str]:
    return [row["id"] for row in folder.read_answers()]


def test_answers_are_read_back_and_one_that_was_cut_short_is_left_out(folder):
    rows = [{"id": "a", "answer": "É"}, {"id": "b"}]
    folder.append(ANSWERS, rows)
    path = folder.path / ANSWERS
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert folder.read_answers() == rows[: whole[:end].count(b"\n")]


def test_writing_answers_drops_all_others(folder):
    folder.append(ANSWERS, [{"id": "a"}, {"id": "b"}])
    folder.write_rows(ANSWERS, [{"id": "b"}])
    folder.append(ANSWERS, [{"id": "c"}])
    assert ids(folder) == ["b", "c"]


def test_a_line_that_is_no_answer_is_named(folder):
    folder.append(ANSWERS, [{"id": "a"}])
    with (folder.path / ANSWERS).open("a") as file:
        file.write("{oops}\n")
    with pytest.raises(DataMalformed, match=r"predictions.jsonl, line 2: .*--overwrite"):
        folder.read_answers()


def test_other_settings_are_refused_by_name(folder):
    other = {**SETTINGS, "recipe": {"search": {"top_k": 5}}}
    with pytest.raises(RunFolderError, match=r"with recipe.search.top_k = 3, now it is 5; "):
        folder.begin(other, "")


def test_differing_settings_are_listed_by_dotted_key():
    assert setting_differences(SETTINGS, {"version": 1, "recipe": {"search": {}}}) == {
        "recipe.search.top_k": (3, None),
        "methods": (["rsearch"], None),
        "recipe.search": (None, {}),
    }


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


def test_rows_that_the_disk_does_not_hold_leave_those_before_them(folder):
    folder.append(ANSWERS, [{"id": "a"}])
    size = (folder.path / ANSWERS).stat().st_size
    line = rf"^{ANSWERS} could not be written in {folder.path}: File too large \(.* MB free\)"
    line += "; free some space, then run the same command without --overwrite to continue from "
    with pytest.raises(RunUnsaved, match=line + "the stored answers$"), largest_file(size + 200):
        folder.append(ANSWERS, [{"id": "b", "transcript": "x" * 300}])
    folder.append(ANSWERS, [{"id": "c"}])
    assert ids(folder) == ["a", "c"]


def test_a_file_that_the_disk_does_not_hold_leaves_the_old_one_and_no_other(folder):
    folder.write_rows(ANSWERS, [{"id": "a"}])
    before = sorted(folder.path.iterdir())
    with pytest.raises(RunUnsaved, match=f"^{ANSWERS} could not"), largest_file(100):
        folder.write_rows(ANSWERS, [{"id": "b", "transcript": "x" * 300}])
    assert ids(folder) == ["a"]
    assert sorted(folder.path.iterdir()) == before


def test_a_kill_before_the_first_file_does_not_occupy_the_folder(tmp_path):
    folder = EvaluationFolder(tmp_path)
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "recipe.yaml").write_text("purp")
    folder.check()
    with folder.locked():
        folder.begin(SETTINGS, "purpose: x\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evaluation.json", "recipe.yaml"]


def test_starting_over_removes_what_was_there(folder):
    folder.append(ANSWERS, [{"id": "a"}])
    (folder.path / "spend.json").write_text("{}")
    with folder.locked(overwrite=True):
        assert not (folder.path / "spend.json").exists() and folder.holds_evaluation
        folder.begin({**SETTINGS, "methods": ["rag"]}, "", overwrite=True)
    assert folder.read_answers() == []
    assert folder.read_settings()["methods"] == ["rag"]


def test_two_processes_do_not_write_into_one_folder(folder):
    with (
        folder.locked(),
        pytest.raises(RunFolderOccupied, match="another process is evaluating in"),
        EvaluationFolder(folder.path).locked(),
    ):
        pass


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunFolderOccupied, match=r"contains other files, such as mine\.txt"):
        EvaluationFolder(tmp_path).check()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderUnwritable, match="is a file; choose another with --output-dir"):
        EvaluationFolder(tmp_path / "file").check()


def test_a_folder_without_an_evaluation_says_how_to_make_one(tmp_path):
    with pytest.raises(RunFolderError, match=r"contains no evaluation .* rsearch eval --output"):
        EvaluationFolder(tmp_path).read_settings()
