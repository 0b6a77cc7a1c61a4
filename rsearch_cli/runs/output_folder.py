"""What run folders and evaluation folders share: files written whole, rows appended whole.

A kill or a full disk at any moment leaves every file as it was or complete. Files are written in
`.partial`, flushed and renamed; appended rows are flushed, and a row cut short is not read. Of the
processes of a training only the main one writes.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import is_main
from rsearch_cli.errors import RunFolderError
from rsearch_cli.runs.atomic_write import saving, staged
from rsearch_cli.runs.files import PARTIAL
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.runs.jsonl import append_rows, read_rows, write_lines


class OutputFolder(ABC):
    """A folder that a command writes its results to and can continue from.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def staging(self) -> Path:
        """Where files and folders are written before they are moved into place."""
        return self.path / PARTIAL

    @abstractmethod
    def describe_resume(self) -> str:
        """Return how to continue after a stop, as the end of an error message."""

    def saving(self, name: str) -> AbstractContextManager[None]:
        """Turn a failed write in the block into a `RunUnsaved` (see `atomic_write.saving`)."""
        return saving(self.path, name, self.describe_resume)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """Let the block write a file or folder, then move it into place.

        Args:
            name: Its place in the folder, without a parent for a folder; an old one is replaced.

        Yields:
            The path to write to; its parent exists. In a process other than the main one it is a
            temporary path that is discarded.

        Raises:
            RunUnsaved: A write failed; either the old one or the complete new one is in place.
        """
        if is_main():
            with staged(self.path, name, self.describe_resume) as made:
                yield made
            return
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere) / Path(name).name

    def write_text(self, name: str, text: str) -> None:
        """Write a file atomically.

        Raises:
            RunUnsaved: The write failed; the old file is unchanged.
        """
        with self.staged(name) as file:
            file.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, atomically."""
        self.write_text(name, dump_json(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file; {} if there is no such file.

        Raises:
            RunFolderError: It cannot be read.
        """
        try:
            return read_json_object(self.path / name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.path / name} cannot be read ({error}); restore the file that rsearch wrote"
            ) from error

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a JSONL file and flush them to disk.

        Raises:
            RunUnsaved: The write failed; the file is unchanged.
        """
        if is_main():
            with self.saving(name):
                append_rows(self.path / name, rows)

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a JSONL file atomically."""
        self.write_text(name, write_lines(rows))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a JSONL file up to the first incomplete one; [] without a file."""
        return read_rows(self.path / name)
