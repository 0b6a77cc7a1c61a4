"""A locked folder: who else is kept out, for how long, and what is left behind."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rsearch_cli.errors import RunFolderOccupied, RunFolderUnwritable
from rsearch_cli.runs.files import LOCK
from rsearch_cli.runs.folder_lock import check_writable, lock_folder

HOLD = """
import sys
from pathlib import Path
from rsearch_cli.runs.folder_lock import lock_folder
with lock_folder(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until its stdin is closed, or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process


def claim(folder: Path) -> None:
    with lock_folder(folder, "training"):
        pass


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with other_process(folder) as process:
        with pytest.raises(RunFolderOccupied) as raised:
            claim(folder)
        holder, said = str(raised.value).split(" is training in ")
        assert said == f"{folder}; wait until it ends, or choose another folder with --output-dir"
        if Path("/proc/locks").exists():
            assert holder.startswith(f"process {process.pid} on {platform.node()} (python")
        else:
            assert holder == "another process"
        process.communicate()
    claim(folder)


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        process.kill()
        process.wait()
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
        claim(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_nothing_came_to_be_goes_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    with pytest.raises(ZeroDivisionError), lock_folder(folder, "training"):
        assert folder.is_dir()
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_what_came_to_be_stays_and_so_does_a_folder_that_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    with lock_folder(folder, "training"):
        (folder / "mine").touch()
    assert [path.name for path in folder.iterdir()] == ["mine"]
    (folder / "mine").unlink()
    claim(folder)
    assert folder.is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = rf"^output folder {tmp_path / 'file'} cannot be written: File exists; choose another "
    with pytest.raises(RunFolderUnwritable, match=line + "with --output-dir$"):
        claim(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("file", "is a file"),
        ("file/run", "cannot be written: Not a directory at {tmp}/file"),
        ("n" * 300, "cannot be written: File name too long"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderUnwritable) as raised:
        check_writable(tmp_path / name)
    line = f"output folder {tmp_path / name} {problem.replace('{tmp}', str(tmp_path))}"
    assert str(raised.value) == f"{line}; choose another with --output-dir"


def test_to_see_whether_a_folder_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []
