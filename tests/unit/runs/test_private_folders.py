"""Folders with questions, answers and spending are made for their owner alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsearch_cli.runs.confined_paths import make_private
from rsearch_cli.runs.folder_lock import lock_folder
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.cache import AnswerCache, make_key


@pytest.fixture(autouse=True)
def usual_mask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_run_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with lock_folder(folder, "training"):
        RunFolder(folder).open(resume=False)
        assert mode(folder) == 0o700


def test_the_cache_is_for_its_owner_alone(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with AnswerCache(root / "answers") as cache:
        cache.put(make_key("exa", query="q"), [])
        assert [mode(root), mode(root / "answers")] == [0o700, 0o700]


def test_a_folder_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private(tmp_path / "shared")
    make_private(tmp_path / "shared" / "a" / "b")
    assert [mode(tmp_path / "shared"), mode(tmp_path / "shared" / "a" / "b")] == [0o755, 0o700]
