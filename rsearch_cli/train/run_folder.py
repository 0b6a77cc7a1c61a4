"""The run folder: everything that is needed to read, judge and rebuild a run.

    recipe.yaml  environment.json  metrics.jsonl  trajectories.jsonl  predictions/  checkpoint-N/
    adapter/  spend.json  summary.json

Place in the path: train writes it. On failure: a folder that cannot be used raises a
`RunFolderError` before anything slow starts, and an existing run is touched only by `open`, once
questions and model are there. Single files are replaced whole, never half-written.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rsearch_cli.errors import RunFolderError, RunFolderOccupied, RunFolderUnwritable
from rsearch_cli.services.purse import SPEND

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
TRAJECTORIES = "trajectories.jsonl"
SUMMARY = "summary.json"
ADAPTER = "adapter"
PREDICTIONS = "predictions"
OURS = (RECIPE, ENVIRONMENT, METRICS, TRAJECTORIES, SUMMARY, ADAPTER, PREDICTIONS, SPEND)


class RunFolder:
    """One run on disk.

    Args:
        path: The folder; made by `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / RECIPE).exists()

    @property
    def adapter(self) -> Path:
        """Where the trained adapter goes."""
        return self.path / ADAPTER

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """See whether a run can be started or resumed here; changes nothing that stays.

        Raises:
            RunFolderOccupied: If a run or foreign files are in the way.
            RunFolderUnwritable: If nothing can be written here.
            RunFolderError: If there is nothing to resume.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderUnwritable(
                f"output folder {self.path} is a file; choose another with --output-dir"
            )
        if resume:
            if not self.holds_run:
                raise RunFolderError(
                    f"output folder {self.path} holds no run to resume; "
                    "leave --resume out to start one"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            if not self.holds_run:
                raise RunFolderOccupied(
                    f"output folder {self.path} holds files that are no run of rsearch; "
                    "choose another with --output-dir"
                )
            if not overwrite:
                raise RunFolderOccupied(
                    f"output folder {self.path} already holds a run; add --resume to go on with "
                    "it, --overwrite to replace it, or choose another with --output-dir"
                )
        self._check_writable()

    def _check_writable(self) -> None:
        """Write and remove a file in the nearest folder that exists."""
        nearest = next(p for p in [self.path, *self.path.absolute().parents] if p.is_dir())
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            raise RunFolderUnwritable(
                f"output folder {self.path} cannot be written: {error.strerror} at {nearest}; "
                "choose another with --output-dir"
            ) from error

    def open(self, *, resume: bool) -> None:
        """Make the folder; without `resume`, remove what an earlier run of ours left in it."""
        try:
            if not resume and self.holds_run:
                for path in [*(self.path / name for name in OURS), *self.checkpoints()]:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderUnwritable(
                f"output folder {self.path} cannot be made: {error.strerror}; "
                "choose another with --output-dir"
            ) from error

    def checkpoints(self) -> list[Path]:
        """The checkpoint folders, by step."""
        found = [p for p in self.path.glob("checkpoint-*") if p.name[11:].isdigit()]
        return sorted(found, key=checkpoint_step)

    def last_checkpoint(self) -> Path | None:
        """The latest checkpoint, or None."""
        found = self.checkpoints()
        return found[-1] if found else None

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole: readers see the old one or the new one."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, whole."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a JSONL file, in one write."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(_as_lines(rows))

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a JSONL file, whole."""
        self.write_text(name, _as_lines(rows))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file, [] if it is not there; a last line cut short is left out."""
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def keep_rows_until(self, step: int) -> None:
        """Drop the metrics and trajectories of steps after `step`: a resumed run repeats them."""
        for name in (METRICS, TRAJECTORIES):
            self.write_rows(name, [row for row in self.read_rows(name) if row["step"] <= step])


def checkpoint_step(path: Path) -> int:
    """The optimiser step that a checkpoint folder was saved after."""
    return int(path.name.removeprefix("checkpoint-"))


def _as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
