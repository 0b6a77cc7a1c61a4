"""The folder of a training run: everything needed to read, judge and rebuild the run.

    recipe.yaml  environment.json  metrics.jsonl  trajectories.jsonl  validation.jsonl
    predictions/  checkpoint-N/  best/  adapter/  spend.json  spend_by_step.jsonl  summary.json
    wandb.json  wandb/

A supervised run has `traces.jsonl` and `traces.json` instead of trajectories, and `teacher.jsonl`
if a teacher wrote them; a run that starts from a trained adapter keeps it in `start/`, and one that
chooses its questions by pass rates keeps those in `profile.json`. An existing run is changed only
by `open`, after questions and model have been loaded, or before a teacher is asked.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rsearch_cli.distributed import is_main
from rsearch_cli.errors import (
    RunFolderError,
    RunFolderOccupied,
    RunFolderUnwritable,
)
from rsearch_cli.runs import files
from rsearch_cli.runs.atomic_write import finish_swaps
from rsearch_cli.runs.confined_paths import make_private
from rsearch_cli.runs.folder_lock import check_writable, lock_folder
from rsearch_cli.runs.jsonl import cut_rows, damaged_line
from rsearch_cli.runs.output_folder import OutputFolder


class RunFolder(OutputFolder):
    """One training run on disk.

    Attributes:
        path: The folder; created by `open`.
        opened: Whether `open` was called.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened = False

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / files.RECIPE).exists()

    @property
    def is_started(self) -> bool:
        """Whether a run got as far as asking its teacher or loading its model here."""
        begun = (files.TEACHER_ANSWERS, files.ENVIRONMENT)
        return self.holds_run and any((self.path / name).exists() for name in begun)

    @property
    def adapter(self) -> Path:
        """Folder of the trained adapter."""
        return self.path / files.ADAPTER

    @property
    def best(self) -> Path:
        """Folder of the adapter with the best score on the validation slice."""
        return self.path / files.BEST

    @property
    def start(self) -> Path:
        """Folder of the adapter that the run started from."""
        return self.path / files.START

    @property
    def supervised(self) -> bool:
        """Whether the run learns from traces, and so has no trajectories."""
        return (self.path / files.TRACES).exists()

    @contextmanager
    def locked(self, *, overwrite: bool, resume: bool) -> Iterator[None]:
        """Check that a run can be started or resumed here, and lock the folder for the block.

        Raises:
            RunFolderOccupied: A run or other files are in the way, or another process trains here.
            RunFolderUnwritable: Nothing can be written here.
            RunFolderError: There is no run to resume.
        """
        self.check(overwrite=overwrite, resume=resume)
        with lock_folder(self.path, "training") if is_main() else nullcontext():
            # Again: another process may have started and finished a run meanwhile.
            self.check(overwrite=overwrite, resume=resume)
            yield

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """Check that a run can be started or resumed here; change nothing.

        Raises:
            RunFolderOccupied: A run or other files are in the way.
            RunFolderUnwritable: Nothing can be written here.
            RunFolderError: There is no run to resume.
        """
        if not is_main():
            return
        check_writable(self.path)
        if resume:
            if not self.holds_run:
                raise RunFolderError(
                    f"output folder {self.path} contains no run to resume; start one without "
                    "--resume"
                )
        elif self.path.exists() and any(
            p.name not in files.LEFT_BEFORE_START for p in self.path.iterdir()
        ):
            if not self.holds_run:
                raise RunFolderOccupied(
                    f"output folder {self.path} contains other files and no run; choose another "
                    "folder with --output-dir"
                )
            if not overwrite:
                raise RunFolderOccupied(
                    f"output folder {self.path} already contains a run; continue it with --resume, "
                    "replace it with --overwrite, or choose another folder with --output-dir"
                )

    def open(self, *, resume: bool) -> None:
        """Create the folder; without `resume`, remove the files of an earlier run from it.

        Raises:
            RunFolderUnwritable: The folder cannot be created or cleared.
        """
        self.opened = True
        if not is_main():
            return
        try:
            finish_swaps(self.path)
            left = [self.staging]
            if not resume and self.holds_run:
                left = [
                    *self.path.glob(f"{files.CHECKPOINT}*"),
                    *(self.path / name for name in files.OF_A_RUN),
                ]
            for path in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            make_private(self.path)
        except OSError as error:
            raise RunFolderUnwritable(
                f"output folder {self.path} cannot be created: {error.strerror}; choose another "
                "with --output-dir"
            ) from error

    def checkpoints(self) -> list[Path]:
        """Return the checkpoint folders, by step."""
        found = [
            path
            for path in self.path.glob(f"{files.CHECKPOINT}*")
            if path.name.removeprefix(files.CHECKPOINT).isdigit()
        ]
        return sorted(found, key=checkpoint_step)

    def last_checkpoint(self) -> Path | None:
        """Return the latest checkpoint, or None."""
        found = self.checkpoints()
        return found[-1] if found else None

    def describe_resume(self) -> str:
        """Return where a run that stops now can continue, as the end of an error message."""
        if not self.opened:
            return "nothing was changed"
        last = self.last_checkpoint()
        if (self.path / files.TEACHER_ANSWERS).exists() and not self.supervised:
            return "--resume keeps the answers of the teacher so far"
        if last is None:
            return "--resume starts with the first step"
        return f"--resume continues from {last}"

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn an error in the block into one that names the damaged file.

        Raises:
            RunFolderError: The block raised an error because of the file's content.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise RunFolderError(
                f"{self.path / name} is damaged ({reason}); start over with --overwrite, or copy "
                "the run again from where it was made"
            ) from error

    def discard(self, path: Path) -> None:
        """Remove a folder of the run; a kill never leaves half of it under its name."""
        self.staging.mkdir(exist_ok=True)
        os.replace(path, self.staging / path.name)
        shutil.rmtree(self.staging)

    def keep_rows_until(self, step: int, rollouts: int = 1) -> list[str]:
        """Remove the rows of steps after `step`, which a resumed run repeats, and incomplete rows.

        Args:
            step: The last step to keep, 0 for none.
            rollouts: Trajectories per step, or a divisor of that number.

        Returns:
            A line for every file that is damaged (a copy of it is kept) or lacks rows.
        """
        warnings: list[str] = []
        for name in files.GROWING_ROWS if is_main() else ():
            path = self.path / name
            if (line := damaged_line(path)) is not None:
                with self.staged(f"{name}{files.DAMAGED}") as copy:
                    shutil.copyfile(path, copy)
                warnings.append(
                    f"{name} is damaged in line {line}; a copy is kept as {name}{files.DAMAGED}"
                )
            with self.saving(name), self.reading(name):
                # What the steps have paid for counts when they are repeated.
                counts = cut_rows(path, step if name in files.STEP_ROWS else sys.maxsize)
            expected = {
                files.METRICS: 1,
                files.TRAJECTORIES: 0 if self.supervised else rollouts,
            }.get(name, 0)
            done = range(1, step + 1) if expected else ()
            missing = [of for of in done if not counts[of] or counts[of] % expected]
            if missing:
                warnings.append(
                    f"{name} lacks rows of {len(missing)} of the {step} finished steps, the first "
                    f"is step {missing[0]}; the run continues without them"
                )
        return warnings


def checkpoint_step(path: Path) -> int:
    """Return the optimiser step that a checkpoint folder was saved after."""
    return int(path.name.removeprefix(files.CHECKPOINT))
