"""Folders that hold questions, answers and spending, which are nobody else's business."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; one that is there keeps its permissions.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
