"""Rows: appended whole, read as far as they are whole, cut back in place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rsearch_cli.runs.jsonl import append_rows, cut_rows, damaged_line, read_rows

ROWS = [{"step": 1, "text": "Zürich"}, {"step": 2, "text": "a\nb"}, {"step": 2}, {"step": 3}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    append_rows(path, ROWS[:2])
    append_rows(path, ROWS[2:])
    return path


def test_rows_come_back(file: Path) -> None:
    assert read_rows(file) == ROWS


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.jsonl") == []
    cut_rows(tmp_path / "none.jsonl", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", [b'{"step": 4, "rew', b'{"step": 4}', b"\x00\x00\x00\n", b"4\n"])
def test_a_row_that_is_not_whole_is_no_row(file: Path, tail: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(tail)
    assert read_rows(file) == ROWS
    cut_rows(file, 3)
    append_rows(file, [{"step": 4}])
    assert read_rows(file) == [*ROWS, {"step": 4}]


@pytest.mark.parametrize(
    ("tail", "line"),
    [(b"", None), (b'{"step": 4, "rew', None), (b"\x00\x00\n", 5), (b"[" * 100_000 + b"\n{}\n", 5)],
)
def test_a_kill_leaves_no_damage_but_a_line_cut_short(
    file: Path, tail: bytes, line: int | None
) -> None:
    with file.open("ab") as stream:
        stream.write(tail)
    assert damaged_line(file) == line
    assert damaged_line(file.with_name("none.jsonl")) is None


@pytest.mark.parametrize(("step", "left"), [(0, 0), (1, 1), (2, 3), (3, 4), (9, 4)])
def test_later_steps_are_cut_off(file: Path, step: int, left: int) -> None:
    assert cut_rows(file, step).total() == left
    assert read_rows(file) == ROWS[:left]


def test_a_failed_append_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        append_rows(file, [{"step": 4, "text": "x" * 100_000}])
    assert file.read_bytes() == before
