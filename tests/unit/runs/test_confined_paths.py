"""A folder that somebody sent cannot make rsearch write, wait or look outside of it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from rsearch_cli.errors import RunFolderError
from rsearch_cli.runs.atomic_write import replacing
from rsearch_cli.runs.confined_paths import open_own
from rsearch_cli.runs.files import LOCK, SPEND, SPEND_LOCK
from rsearch_cli.runs.folder_lock import check_writable, lock_folder
from rsearch_cli.runs.jsonl import append_rows, cut_rows, read_rows
from rsearch_cli.services.budget import Budget

TEXT = "mine, and not to be touched\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "elsewhere" / "mine.txt"
    file.parent.mkdir()
    file.write_text(TEXT)
    return file


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    folder = tmp_path / "sent"
    folder.mkdir()
    return folder


def claim(folder: Path) -> None:
    with lock_folder(folder, "training"):
        pass


def pack(kind: str, path: Path, mine: Path) -> None:
    """Put something at `path` that is no plain file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(mine)
    elif kind == "relative link":
        path.symlink_to(os.path.relpath(mine, path.parent))
    elif kind == "link to a new file":
        path.symlink_to(mine.with_name("new.txt"))
    elif kind == "link to a folder":
        path.symlink_to(mine.parent)
    elif kind == "hard link":
        path.hardlink_to(mine)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as end:
            here = Path.cwd()
            os.chdir(path.parent)  # the name of a socket has room for 100 characters
            end.bind(path.name)
            os.chdir(here)


KINDS = (
    *("link", "relative link", "link to a new file", "link to a folder"),
    *("hard link", "FIFO", "socket"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["validation.jsonl", LOCK, SPEND, SPEND_LOCK, "wandb"])
@pytest.mark.parametrize("check", [claim, check_writable])
def test_a_folder_with_a_way_out_is_refused_before_anything_is_written(
    check, kind: str, name: str, sent: Path, mine: Path
) -> None:
    pack(kind, sent / name, mine)
    with pytest.raises(RunFolderError, match=rf"^{sent / name} .*; remove it") as caught:
        check(sent)
    assert "\n" not in str(caught.value)
    assert mine.read_text() == TEXT
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]


@pytest.mark.parametrize("name", ["predictions/a.jsonl", ".partial/x", "checkpoint-2/deep/seal"])
def test_a_way_out_is_found_at_any_depth(name: str, sent: Path, mine: Path) -> None:
    pack("link", sent / name, mine)
    with pytest.raises(RunFolderError, match=f"{name} is a link to {mine}"):
        claim(sent)


def test_links_that_stay_inside_and_a_folder_that_is_a_link_are_fine(
    sent: Path, tmp_path: Path
) -> None:
    """As W&B makes them, and as people do whose runs lie on another disk."""
    (sent / "wandb" / "run-1").mkdir(parents=True)
    (sent / "wandb" / "latest-run").symlink_to("run-1")
    (tmp_path / "runs").symlink_to(sent)
    claim(tmp_path / "runs")
    check_writable(tmp_path / "runs")


@pytest.mark.parametrize("kind", ["link", "relative link", "link to a new file", "hard link"])
def test_rows_are_not_appended_or_cut_through_a_link(kind: str, sent: Path, mine: Path) -> None:
    rows = sent / "validation.jsonl"
    pack(kind, rows, mine)
    with pytest.raises(RunFolderError, match=str(rows)):
        append_rows(rows, [{"step": 1}])
    with pytest.raises(RunFolderError, match=str(rows)):
        cut_rows(rows, 0)
    assert mine.read_text() == TEXT
    assert not mine.with_name("new.txt").exists()


@pytest.mark.parametrize("kind", ["link", "hard link", "link to a new file"])
def test_what_is_spent_is_not_written_through_a_link(kind: str, sent: Path, mine: Path) -> None:
    pack(kind, sent / SPEND, mine)
    with pytest.raises(RunFolderError, match=SPEND):
        Budget(sent, 1.0).reserve("exa", 0.1)
    assert mine.read_text() == TEXT
    assert not mine.with_name("new.txt").exists()


def test_the_lock_of_what_is_spent_is_not_opened_through_a_link(sent: Path, mine: Path) -> None:
    pack("link", sent / SPEND_LOCK, mine)
    with pytest.raises(RunFolderError, match=SPEND):
        Budget(sent, 1.0).reserve("exa", 0.1)
    assert mine.read_text() == TEXT


@pytest.mark.parametrize("kind", ["FIFO", "link", "socket"])
def test_nothing_waits_for_what_is_no_file(kind: str, sent: Path, mine: Path) -> None:
    pack(kind, sent / "metrics.jsonl", mine)
    with pytest.raises((RunFolderError, OSError)):
        read_rows(sent / "metrics.jsonl")


def test_a_plain_file_is_opened_as_ever(sent: Path) -> None:
    with open(sent / "a", "w", opener=open_own) as file:
        file.write(TEXT)
    assert (sent / "a").read_text() == TEXT
    append_rows(sent / "rows", [{"step": 1}, {"step": 2}])
    cut_rows(sent / "rows", 1)
    assert read_rows(sent / "rows") == [{"step": 1}]
    (sent / "b").hardlink_to(sent / "rows")
    assert read_rows(sent / "b") == [{"step": 1}], "reading harms nobody"


@pytest.mark.parametrize(
    "numbers",
    [{"usd": -99.0}, {"usd": float("nan")}, {"usd": float("-inf")}, {"usd": "0"}, {"calls": -1},
     {"usd": True}, {"saved_usd": -1.0}],
)  # fmt: skip
def test_a_negative_spend_does_not_raise_the_budget(numbers: dict, sent: Path) -> None:
    state = {"version": 1, "services": {"exa": numbers}}
    (sent / SPEND).write_text(json.dumps(state))
    with pytest.raises(RunFolderError, match=r"does not say what the run has spent \(.* of exa"):
        Budget(sent, 1.0).reserve("exa", 5.0)


def test_a_draft_goes_through_no_link_that_waits_beside_the_file(tmp_path: Path, mine) -> None:
    target = tmp_path / "export.jsonl"
    (tmp_path / f".{target.name}.partial").symlink_to(mine)
    target.symlink_to(mine)
    with replacing(target) as state:
        state.write_text("new")
    assert (target.read_text(), target.is_symlink()) == ("new", False)
    assert mine.read_text() == TEXT
    with pytest.raises(ZeroDivisionError), replacing(target) as state:
        state.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "new"
    assert not list(tmp_path.glob(".writing-*"))
