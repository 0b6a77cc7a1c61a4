"""Look into runs and evaluations: write them into one HTML file."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rsearch_cli.runs.files import VIEW
from rsearch_cli.viewer.collection import Collection
from rsearch_cli.viewer.html_file import refuse_foreign, write_file
from rsearch_cli.viewer.schema import Detail

logger = logging.getLogger(__name__)

_FIRST_SECONDS, _NEXT_SECONDS = 2.0, 5.0


def write_view(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write runs and evaluations into one HTML file, which needs nothing else.

    Args:
        folders: At least one.
        output: The file; None takes `view.html` in the first folder.

    Returns:
        The file.

    Raises:
        RunFolderError: A folder contains neither a run nor an evaluation.
        RunFolderUnwritable: The file cannot be written, or is not one of ours.
    """
    collection = Collection(folders)
    path = output or folders[0] / VIEW
    refuse_foreign(path)
    progress = Progress()
    collection.refresh(progress.count_rows)
    write_file(path, collection.index(), progress.follow(collection.parts(), collection))
    return path


class Progress:
    """Lines about what takes a while: after two seconds, then every five."""

    def __init__(self) -> None:
        self._rows = 0
        self._next = time.monotonic() + _FIRST_SECONDS

    def count_rows(self, count: int) -> None:
        """Count rows that were read."""
        self._rows += count
        self._say(f"read {self._rows:,} rows")

    def follow(
        self, parts: Iterator[tuple[str, list[Detail]]], collection: Collection
    ) -> Iterator[tuple[str, list[Detail]]]:
        """Yield the parts, and count those that were written."""
        total, written = collection.count, 0
        for name, details in parts:
            yield name, details
            written += len(details)
            self._say(f"wrote {written:,} of {total:,} rows")

    def _say(self, line: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _NEXT_SECONDS
            logger.info(line)
