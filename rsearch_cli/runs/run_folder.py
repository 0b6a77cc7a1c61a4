"""The run folder: everything that is needed to read, judge and rebuild a run.

    recipe.yaml  environment.json  metrics.jsonl  trajectories.jsonl  validation.jsonl
    predictions/  checkpoint-N/  best/  adapter/  spend.json  summary.json  wandb.json  wandb/

and of a supervised run `traces.jsonl` and `traces.json` in place of trajectories, of one that
starts from a trained adapter `start/`.

Place in the path: train writes it. On failure: a folder that cannot be used raises a
`RunFolderError` before anything slow starts, and an existing run is touched only by `open`, once
questions and model are there. A kill or a full disk at any moment leaves every file and folder
whole: they are written in `.partial`, flushed to the disk and then renamed, which `open` finishes
where a kill came between; rows are appended, and a row that was cut short is no row. A write that
fails is a `RunUnsaved`. One training at a time has the folder, and of its processes only the main
one writes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import is_main
from rsearch_cli.errors import (
    RunFolderError,
    RunFolderOccupied,
    RunFolderUnwritable,
)
from rsearch_cli.runs.atomic_write import finish_swaps, saving, staged
from rsearch_cli.runs.files import (
    ADAPTER,
    BEST,
    ENVIRONMENT,
    LOCK,
    METRICS,
    PARTIAL,
    PREDICTIONS,
    PUSH,
    RECIPE,
    SPEND,
    SPEND_LOCK,
    START,
    SUMMARY,
    TRACE_STATS,
    TRACES,
    TRAJECTORIES,
    VALIDATION,
    WANDB,
    WANDB_RUN,
)
from rsearch_cli.runs.folder_lock import claim_folder, require_writable
from rsearch_cli.runs.json_text import dump_json, read_json_object
from rsearch_cli.runs.jsonl import append_rows, cut_rows, damaged_line, read_rows, write_lines
from rsearch_cli.runs.private_files import make_private

ROWS = (METRICS, TRAJECTORIES, VALIDATION)
DAMAGED = ".damaged"
# The recipe comes last: it is what makes the folder a run, also one that is only half removed.
OURS = (
    *(PARTIAL, ENVIRONMENT, *ROWS, SUMMARY, ADAPTER, BEST, PREDICTIONS, SPEND, WANDB_RUN, WANDB),
    *(START, TRACES, TRACE_STATS, PUSH, *(f"{name}{DAMAGED}" for name in ROWS), RECIPE),
)
# What a start that failed or was killed leaves in a folder that is no run yet. A run that is then
# started there goes on from what was spent.
LEFT = (PARTIAL, LOCK, SPEND, SPEND_LOCK)


class RunFolder:
    """One run on disk.

    Attributes:
        path: The folder; made by `open`.
        opened: Whether `open` has made it ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened = False

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / RECIPE).exists()

    @property
    def is_started(self) -> bool:
        """Whether a run got as far as its environment here: more than a recipe file."""
        return self.holds_run and (self.path / ENVIRONMENT).exists()

    @property
    def adapter(self) -> Path:
        """Where the trained adapter goes."""
        return self.path / ADAPTER

    @property
    def best(self) -> Path:
        """Where the adapter goes that did best on the validation slice."""
        return self.path / BEST

    @property
    def staging(self) -> Path:
        """Where files and folders are written before they are put in their place."""
        return self.path / PARTIAL

    @property
    def start(self) -> Path:
        """Where the adapter is kept that a run started from."""
        return self.path / START

    @property
    def supervised(self) -> bool:
        """Whether the run learns traces, and so has no trajectories."""
        return (self.path / TRACES).exists()

    @contextmanager
    def locked(self, *, overwrite: bool, resume: bool) -> Iterator[None]:
        """Check that a run can be started or resumed here, and keep others out in the block.

        Raises:
            RunFolderOccupied: A run or foreign files are in the way, or another process trains.
            RunFolderUnwritable: Nothing can be written here.
            RunFolderError: There is nothing to resume.
        """
        self.check(overwrite=overwrite, resume=resume)
        with claim_folder(self.path, "training") if is_main() else nullcontext():
            # Again: another process may have begun and ended a run since.
            self.check(overwrite=overwrite, resume=resume)
            yield

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """See whether a run can be started or resumed here; changes nothing that stays.

        Raises:
            RunFolderOccupied: If a run or foreign files are in the way.
            RunFolderUnwritable: If nothing can be written here.
            RunFolderError: If there is nothing to resume.
        """
        if not is_main():
            return
        require_writable(self.path)
        if resume:
            if not self.holds_run:
                raise RunFolderError(
                    f"output folder {self.path} holds no run to resume; "
                    "leave --resume out to start one"
                )
        elif self.path.exists() and any(p.name not in LEFT for p in self.path.iterdir()):
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

    def open(self, *, resume: bool) -> None:
        """Make the folder; without `resume`, remove what an earlier run of ours left in it.

        Raises:
            RunFolderUnwritable: The folder cannot be made or cleared.
        """
        self.opened = True
        if not is_main():
            return
        try:
            finish_swaps(self.path)
            left = [self.staging]
            if not resume and self.holds_run:
                left = [*self.path.glob("checkpoint-*"), *(self.path / name for name in OURS)]
            for path in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            make_private(self.path)
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

    def describe_resume(self) -> str:
        """Say in a few words where a run that stops now can go on."""
        if not self.opened:
            return "nothing was changed"
        last = self.last_checkpoint()
        if last is None:
            return "--resume starts with the first step"
        return f"--resume goes on from {last}"

    def saving(self, name: str) -> AbstractContextManager[None]:
        """Take a failed write in the block for what it is (see `storage.staging.saving`).

        Raises:
            RunUnsaved: With the reason and the room that is left on the disk.
        """
        return saving(self.path, name, self.describe_resume)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Say in one line that a file of the run is not what rsearch writes there.

        Raises:
            RunFolderError: The block could not make sense of it.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RunFolderError(
                f"{self.path / name} is not what rsearch writes there ({reason}); start anew with "
                "--overwrite, or take a whole copy of the run"
            ) from error

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """Let the block make a file or folder, and put it in its place once it is whole.

        Args:
            name: Its place in the run folder, at the top for a folder; what is there is replaced.

        Yields:
            Where the block makes it; the parent is there. What another process than the main one
            makes is thrown away.

        Raises:
            RunUnsaved: A write failed; the old one is still there, or the new one is, whole.
        """
        if is_main():
            with staged(self.path, name, self.describe_resume) as made:
                yield made
            return
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere) / Path(name).name

    def discard(self, path: Path) -> None:
        """Remove a folder in the run folder; a kill leaves no half of it under its name."""
        self.staging.mkdir(exist_ok=True)
        os.replace(path, self.staging / path.name)
        shutil.rmtree(self.staging)

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole: readers see the old one or the new one.

        Raises:
            RunUnsaved: The write failed; the old one is still there.
        """
        with self.staged(name) as file:
            file.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, whole."""
        self.write_text(name, dump_json(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """The JSON object that `write_json` wrote; {} if the file is not there.

        Raises:
            RunFolderError: It cannot be read.
        """
        try:
            return read_json_object(self.path / name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.path / name} cannot be read ({error}); put back the file that the run wrote"
            ) from error

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a JSONL file, and flush them to the disk.

        Raises:
            RunUnsaved: The write failed; the file is as it was.
        """
        if is_main():
            with self.saving(name):
                append_rows(self.path / name, rows)

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a JSONL file, whole."""
        self.write_text(name, write_lines(rows))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file up to the first that is not whole, [] if it is not there."""
        return read_rows(self.path / name)

    def keep_rows_until(self, step: int, rollouts: int = 1) -> list[str]:
        """Cut off the rows of steps after `step`: a resumed run repeats them.

        Args:
            step: The last that is kept, 0 for none.
            rollouts: Trajectories of a step, or a number that divides it.

        Returns:
            A line for every file that is damaged (a copy of it stays), or lacks rows of the steps.
        """
        said: list[str] = []
        for name in ROWS if is_main() else ():
            path = self.path / name
            if (line := damaged_line(path)) is not None:
                with self.staged(f"{name}{DAMAGED}") as copy:
                    shutil.copyfile(path, copy)
                said.append(f"{name} is damaged in line {line}; a copy is kept as {name}{DAMAGED}")
            with self.saving(name), self.reading(name):
                counts = cut_rows(path, step)
            expected = {METRICS: 1, TRAJECTORIES: 0 if self.supervised else rollouts}.get(name, 0)
            done = range(1, step + 1) if expected else ()
            missing = [of for of in done if not counts[of] or counts[of] % expected]
            if missing:
                said.append(
                    f"{name} was cut: it lacks rows of {len(missing)} of the {step} steps that are "
                    f"done, the first is step {missing[0]}; the run goes on without them"
                )
        return said


def checkpoint_step(path: Path) -> int:
    """The optimiser step that a checkpoint folder was saved after."""
    return int(path.name.removeprefix("checkpoint-"))
