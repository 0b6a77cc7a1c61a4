"""Checkpoints: what is found damaged, which one a run goes on from, and which ones go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rsearch_cli.runs.files import METRICS, SEAL
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.checkpoints import (
    choose_checkpoint,
    drop_old_checkpoints,
    find_damage,
    seal_checkpoint,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of six measured steps with checkpoints after the second, fourth and sixth."""
    folder = RunFolder(tmp_path)
    folder.open(resume=False)
    folder.append(METRICS, [{"step": step} for step in range(1, 7)])
    for step in (2, 4, 6):
        with folder.staged(f"checkpoint-{step}") as checkpoint:
            (checkpoint / "inner").mkdir(parents=True)
            (checkpoint / "weights").write_bytes(bytes(range(step)))
            (checkpoint / "inner" / "state").write_text("state")
            seal_checkpoint(checkpoint)
    return folder


def remove(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def test_a_sealed_checkpoint_is_whole(folder: RunFolder) -> None:
    assert [find_damage(path) for path in folder.checkpoints()] == [None, None, None]


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("weights", remove, "weights is missing"),
        ("inner/state", remove, "inner/state is missing"),
        ("weights", shorten, "weights has 5 bytes where 6 were written"),
        ("inner/state", flip, "inner/state has other content than was written"),
        (SEAL, remove, "seal.json is missing"),
        (SEAL, shorten, "it cannot be read ("),
    ],
)
def test_damage_is_named(
    folder: RunFolder, name: str, damage: Callable[[Path], None], words: str
) -> None:
    checkpoint = folder.path / "checkpoint-6"
    damage(checkpoint / name)
    assert (find_damage(checkpoint) or "").startswith(words)


def test_the_latest_whole_checkpoint_is_chosen_and_nothing_said(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_checkpoint(folder) == folder.path / "checkpoint-6"
    assert caplog.messages == []


def test_later_damaged_ones_are_set_aside_and_earlier_ones_are_left(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 6):
        remove(folder.path / f"checkpoint-{step}" / "weights")
    assert choose_checkpoint(folder) == folder.path / "checkpoint-4"
    line = "checkpoint-6 is not used: weights is missing; renamed to checkpoint-6.damaged"
    assert caplog.messages == [line]
    assert [path.name for path in folder.checkpoints()] == ["checkpoint-2", "checkpoint-4"]


def test_a_checkpoint_can_be_set_aside_twice(folder: RunFolder) -> None:
    (folder.path / "checkpoint-6.damaged").mkdir()
    remove(folder.path / "checkpoint-6" / "weights")
    choose_checkpoint(folder)
    assert (folder.path / "checkpoint-6.damaged" / "inner").exists()


def test_a_checkpoint_ahead_of_its_metrics_gives_way_to_one_that_is_not(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.keep_rows_until(5)
    assert choose_checkpoint(folder) == folder.path / "checkpoint-4"
    assert caplog.messages[0].startswith("checkpoint-6 is not used: metrics.jsonl ends at step 5; ")


def test_weights_count_for_more_than_lost_metrics(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.path / METRICS).unlink()
    assert choose_checkpoint(folder) == folder.path / "checkpoint-6"
    assert caplog.messages == []


def test_without_a_whole_checkpoint_there_is_none(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for path in folder.checkpoints():
        remove(path / SEAL)
    assert choose_checkpoint(folder) is None
    assert len(caplog.messages) == 3 and folder.checkpoints() == []


def test_old_checkpoints_go_by_step_whatever_their_time_of_change(folder: RunFolder) -> None:
    (folder.path / "checkpoint-2" / "touched").touch()
    drop_old_checkpoints(folder, 2)
    assert [path.name for path in folder.checkpoints()] == ["checkpoint-4", "checkpoint-6"]
    drop_old_checkpoints(folder, 5)
    assert len(folder.checkpoints()) == 2
    assert not folder.staging.exists()
