"""Putting things in their place: a folder is there whole, whenever a kill comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsearch_cli.runs.atomic_write import finish_swaps, put_in_place
from rsearch_cli.runs.files import PARTIAL

# Replaces a folder again and again, killed before the first call that changes the disk, before the
# second and so on; prints what the next run finds each time, until no call is left to be killed at.
KILLS = """
import os, signal, sys
from itertools import count
from pathlib import Path
from rsearch_cli.runs.run_folder import RunFolder

def write(folder, text):
    with folder.staged("best") as best:
        best.mkdir()
        (best / "validation.json").write_text(text)
        (best / "weights").write_text(text)

def die_at(call, names=("mkdir", "replace", "unlink", "rmdir")):
    calls = count()
    def counted(real):
        def maybe(*arguments, **options):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return maybe
    for name in names:
        setattr(os, name, counted(getattr(os, name)))

for call in count():
    folder = RunFolder(Path(sys.argv[1]) / str(call))
    folder.open(resume=False)
    write(folder, "old")
    if (child := os.fork()) == 0:
        die_at(call)
        write(folder, "new")
        os._exit(0)
    killed = os.waitpid(child, 0)[1]
    folder.open(resume=True)
    found = sorted(p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*"))
    assert found == ["best", "best/validation.json", "best/weights"], (call, found)
    print(*sorted({p.read_text() for p in folder.best.iterdir()}), sep="+")
    if not killed:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_folder_that_is_replaced_is_there_whole_whenever_a_kill_comes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert set(found) == {"old", "new"} and found == sorted(found, reverse=True)
    assert found.count("old") >= 3 and found.count("new") >= 5


def make(path: Path, text: str) -> None:
    path.mkdir(parents=True)
    (path / "weights").write_text(text)


@pytest.mark.parametrize("call", [1, 2])
def test_a_folder_is_there_also_when_moving_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    make(tmp_path / "best", "old")
    make(tmp_path / PARTIAL / "best", "new")
    replace, calls = os.replace, []

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == call:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        put_in_place(tmp_path, "best")
    finish_swaps(tmp_path)
    assert (tmp_path / "best" / "weights").read_text() == ["old", "new"][call - 1]


def test_what_an_earlier_swap_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        make(tmp_path / PARTIAL / "best", text)
        put_in_place(tmp_path, "best")
    assert (tmp_path / "best" / "weights").read_text() == "third"


def test_without_the_new_folder_the_old_one_comes_back(tmp_path: Path) -> None:
    make(tmp_path / PARTIAL / ".replaced" / "best", "old")
    finish_swaps(tmp_path)
    assert (tmp_path / "best" / "weights").read_text() == "old"
