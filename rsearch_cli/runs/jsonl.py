"""JSONL files that only grow: rows are appended whole and read up to the first incomplete one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rsearch_cli.runs.confined_paths import open_own
from rsearch_cli.runs.json_text import dump_json

Row = dict[str, Any]


def write_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the rows as text, one line each."""
    return "".join(dump_json(row) + "\n" for row in rows)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and flush them to disk.

    Raises:
        OSError: The write failed; the file is unchanged.
        RunFolderError: The path is not a regular file of its own (see `open_own`).
    """
    data = write_lines(rows).encode()
    with open(path, "ab", buffering=0, opener=open_own) as file:
        size = file.tell()
        try:
            while data:  # a disk that fills up accepts a part, and refuses only the next write
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file up to the first incomplete one; [] if there is no file."""
    return [row for row, _ in _complete_rows(path)]


def cut_rows(path: Path, step: int) -> Counter[int]:
    """Truncate a file after the last complete row whose `step` is at most `step`.

    This needs no room on a full disk.

    Returns:
        The number of remaining rows of each step.

    Raises:
        OSError: The file cannot be changed.
        RunFolderError: The path is not a regular file of its own (see `open_own`).
    """
    rows = [(row["step"], end) for row, end in _complete_rows(path)]
    kept = [(of, end) for of, end in rows if of <= step]
    if os.path.lexists(path):
        with open(path, "r+b", opener=open_own) as file:
            file.truncate(max((end for _, end in kept), default=0))
    return Counter(of for of, _ in kept)


def damaged_line(path: Path) -> int | None:
    """Return the number of the first complete line that is not a row, from 1; None without one.

    A kill cuts the last line short; it does not leave such a line.
    """
    if not path.exists():
        return None
    number, end = 1, 0
    for number, (_, end) in enumerate(_complete_rows(path), 2):  # noqa: B007
        pass
    with open(path, "rb", opener=open_own) as file:
        file.seek(end)
        return number if file.readline().endswith(b"\n") else None


def scan_rows(path: Path, start: int = 0) -> Iterator[tuple[Row | None, int]]:
    """Yield the row of each complete line, and None for a line that is not a row.

    A file that grows can be read on from the last position. Nothing is yielded if there is no file.

    Args:
        path: The file.
        start: Position in bytes of the first line.

    Yields:
        The row and the position of its end in bytes.

    Raises:
        RunFolderError: The path is not a regular file of its own (see `open_own`).
    """
    if not os.path.lexists(path):
        return
    end = start
    with open(path, "rb", opener=open_own) as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else None, end


def _complete_rows(path: Path) -> Iterator[tuple[Row, int]]:
    """Yield each row up to the first line that is not one, with the position of its end."""
    for row, end in scan_rows(path):
        if row is None:
            return
        yield row, end
