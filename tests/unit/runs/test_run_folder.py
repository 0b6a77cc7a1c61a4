"""The run folder: who may write where, and that nothing is left half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rsearch_cli.errors import (
    RunFolderError,
    RunFolderOccupied,
    RunFolderUnwritable,
    RunUnsaved,
)
from rsearch_cli.runs import run_folder
from rsearch_cli.runs.files import LOCK, METRICS, RECIPE, SPEND, TRAJECTORIES, VALIDATION
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.budget import Budget


def finished_run(path) -> RunFolder:
    folder = RunFolder(path)
    folder.open(resume=False)
    folder.write_text(RECIPE, "purpose: x\n")
    folder.append(METRICS, [{"step": 1}, {"step": 2}, {"step": 3}])
    folder.append(TRAJECTORIES, [{"step": 1}, {"step": 3}])
    (path / "checkpoint-2").mkdir()
    (path / "checkpoint-10").mkdir()
    return folder


def test_a_new_folder_is_checked_without_being_made(tmp_path):
    RunFolder(tmp_path / "a" / "b").check(overwrite=False, resume=False)
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_the_way_is_refused_and_left_alone(tmp_path):
    finished_run(tmp_path / "run")
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    with pytest.raises(RunFolderOccupied, match="already contains a run; continue it with"):
        RunFolder(tmp_path / "run").check(overwrite=False, resume=False)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before


def test_foreign_files_are_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderOccupied, match="contains other files and no run"):
        RunFolder(tmp_path).check(overwrite=True, resume=False)


def test_overwrite_replaces_the_run_and_keeps_what_is_not_ours(tmp_path):
    folder = finished_run(tmp_path / "run")
    (folder.path / "notes.md").write_text("mine")
    folder.check(overwrite=True, resume=False)
    assert (folder.path / METRICS).exists(), "a check changes nothing"
    folder.open(resume=False)
    assert [p.name for p in folder.path.iterdir()] == ["notes.md"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunFolderUnwritable, match="is a file; choose another with --output-dir"):
        RunFolder(tmp_path / "run").check(overwrite=False, resume=False)


@pytest.mark.skipif(not os.path.isdir("/proc/1"), reason="needs /proc, which not even root writes")
def test_a_place_that_cannot_be_written_is_named():
    with pytest.raises(RunFolderUnwritable, match=r"cannot be written: .* at /proc; choose"):
        RunFolder(Path("/proc/run")).check(overwrite=False, resume=False)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(RunFolderError, match="contains no run to resume; start one without"):
        RunFolder(tmp_path).check(overwrite=False, resume=True)


def test_a_run_without_a_checkpoint_can_be_resumed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)
    folder.write_text(RECIPE, "purpose: x\n")
    folder.check(overwrite=False, resume=True)
    assert folder.last_checkpoint() is None


def test_an_overwritten_run_takes_what_it_spent_with_it(tmp_path):
    folder = finished_run(tmp_path / "run")
    folder.write_json(SPEND, {"version": 1, "services": {}})
    folder.open(resume=True)
    assert (folder.path / SPEND).exists()
    folder.open(resume=False)
    assert not (folder.path / SPEND).exists()


def test_the_last_checkpoint_is_the_one_of_the_latest_step(tmp_path):
    last = finished_run(tmp_path / "run").last_checkpoint()
    assert last is not None and last.name == "checkpoint-10"


def test_rows_after_a_checkpoint_are_dropped_before_they_are_repeated(tmp_path):
    folder = finished_run(tmp_path / "run")
    folder.keep_rows_until(2)
    assert folder.read_rows(METRICS) == [{"step": 1}, {"step": 2}]
    assert folder.read_rows(TRAJECTORIES) == [{"step": 1}]


def test_a_line_cut_short_is_not_read(tmp_path):
    folder = finished_run(tmp_path / "run")
    with (folder.path / METRICS).open("a") as file:
        file.write('{"step": 4, "rew')
    assert [row["step"] for row in folder.read_rows(METRICS)] == [1, 2, 3]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    folder = finished_run(tmp_path / "run")
    with pytest.raises(TypeError):
        folder.write_json(RECIPE, {"x": object()})
    assert (folder.path / RECIPE).read_text() == "purpose: x\n"


def test_what_is_staged_is_not_there_before_it_is_whole(tmp_path):
    folder = finished_run(tmp_path / "run")
    with folder.staged("adapter") as adapter:
        adapter.mkdir()
        (adapter / "weights").write_text("new")
        assert not (folder.path / "adapter").exists()
    assert (folder.path / "adapter" / "weights").read_text() == "new"
    assert not folder.staging.exists()


def test_what_fails_while_it_is_staged_changes_nothing(tmp_path):
    folder = finished_run(tmp_path / "run")
    (folder.adapter).mkdir()
    with pytest.raises(ZeroDivisionError), folder.staged("adapter") as adapter:
        adapter.mkdir()
        1 / 0  # noqa: B018
    assert list(folder.adapter.iterdir()) == [] and not folder.staging.exists()


def save_with_torch(path):
    import torch

    torch.save({"a": torch.zeros(100_000)}, path)


def save_with_safetensors(path):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(100_000)}, path)


def save_by_hand(path):
    path.write_bytes(bytes(400_000))


@pytest.mark.stack
@pytest.mark.parametrize("save", [save_with_torch, save_with_safetensors, save_by_hand])
def test_a_write_that_fails_is_one_line_whichever_library_made_it(tmp_path, save):
    resource = pytest.importorskip("resource", reason="limits need POSIX")
    folder = finished_run(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    line = rf"^weights could not be written in {folder.path}: .* MB free\); free some space, then "
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with (
            pytest.raises(RunUnsaved, match=line + "--resume continues from .*/checkpoint-10$"),
            folder.staged("weights") as path,
        ):
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (folder.path / "weights").exists() and not folder.staging.exists()


def test_an_error_that_is_no_failed_write_is_left_as_it_is(tmp_path):
    folder = finished_run(tmp_path / "run")
    with pytest.raises(RuntimeError, match="a bug"), folder.staged("weights"):
        raise RuntimeError("a bug")


def test_a_kill_before_the_first_file_does_not_occupy_the_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)
    folder.staging.mkdir()
    (folder.staging / RECIPE).write_text("purp")
    RunFolder(tmp_path / "run").check(overwrite=False, resume=False)
    folder.open(resume=False)
    assert list(folder.path.iterdir()) == []


def test_one_process_at_a_time_trains_in_a_folder(tmp_path, monkeypatch):
    folder, other = finished_run(tmp_path / "run"), RunFolder(tmp_path / "run")
    with folder.locked(overwrite=False, resume=True):
        with (
            pytest.raises(RunFolderOccupied, match="another process is training in"),
            other.locked(overwrite=True, resume=False),
        ):
            pass
        # The other processes of the same training leave that to the main one.
        monkeypatch.setenv("RANK", "1")
        with other.locked(overwrite=False, resume=True):
            pass
    monkeypatch.delenv("RANK")
    with other.locked(overwrite=False, resume=True):
        pass


def test_what_another_process_has_made_meanwhile_is_seen(tmp_path, monkeypatch):
    claim = run_folder.lock_folder

    def come_late(path, doing):
        finished_run(path)
        return claim(path, doing)

    monkeypatch.setattr(run_folder, "lock_folder", come_late)
    folder = RunFolder(tmp_path / "run")
    with (
        pytest.raises(RunFolderOccupied, match="already contains a run"),
        folder.locked(overwrite=False, resume=False),
    ):
        pass


def test_the_lock_of_a_killed_process_does_not_occupy_the_folder(tmp_path):
    (tmp_path / LOCK).touch()
    RunFolder(tmp_path).check(overwrite=False, resume=False)


def test_what_a_failed_start_spent_neither_occupies_the_folder_nor_is_forgotten(tmp_path):
    folder = RunFolder(tmp_path / "run")
    Budget(folder.path).reserve("exa", 0.01)
    folder.check(overwrite=False, resume=False)
    folder.open(resume=False)
    assert Budget(folder.path).snapshot().total.usd == 0.01
    (folder.path / "notes.md").write_text("mine")
    with pytest.raises(RunFolderOccupied, match="contains other files and no run"):
        folder.check(overwrite=False, resume=False)


def test_overwrite_also_removes_what_was_set_aside(tmp_path):
    folder = finished_run(tmp_path / "run")
    (folder.path / "checkpoint-4.damaged").mkdir()
    folder.open(resume=False)
    assert list(folder.path.iterdir()) == []


def test_a_stopped_run_names_where_it_continues(tmp_path):
    assert RunFolder(tmp_path).describe_resume() == "nothing was changed"
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)
    assert folder.describe_resume() == "--resume starts with the first step"
    folder = finished_run(tmp_path / "other")
    said = f"--resume continues from {folder.path / 'checkpoint-10'}"
    assert folder.describe_resume() == said


def test_validations_after_a_checkpoint_are_dropped_and_none_are_made_up(tmp_path):
    folder = finished_run(tmp_path / "run")
    folder.keep_rows_until(2)
    assert not (folder.path / VALIDATION).exists()
    folder.append(VALIDATION, [{"step": 2}, {"step": 3}])
    folder.keep_rows_until(2)
    assert folder.read_rows(VALIDATION) == [{"step": 2}]
