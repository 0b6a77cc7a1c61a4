"""Score the policy every few steps and keep the best adapter.

A validation leaves the training untouched: it restores the random generators, and its time and
spend count for no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rsearch_cli.runs.files import BEST, VALIDATION, VALIDATION_ROW
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.step_recovery import RandomState

SCORE = "f1"
"""The figure that decides which adapter is best; finer than exact match on a small slice."""

Score = Callable[[], Mapping[str, Any]]


class Validation:
    """The validations of one training run.

    Args:
        score: Evaluates the policy greedily on the slice and returns the means, including `f1`.
        folder: Where the rows and the best adapter are written.
        every_steps: Steps between two validations, starting at step 0. The last step is always
            validated.
        last_step: Optimiser steps of the whole run.

    Attributes:
        best: The row of the best validation so far, or None. The earlier of two equal ones wins.
    """

    def __init__(self, score: Score, folder: RunFolder, every_steps: int, last_step: int) -> None:
        self._score = score
        self._folder = folder
        self._every_steps = every_steps
        self._last_step = last_step
        with folder.reading(VALIDATION):
            self._done = {int(row["step"]) for row in folder.read_rows(VALIDATION)}
        self.best = read_best(folder)

    def is_due(self, step: int) -> bool:
        """Whether a validation after `step` is due and not yet done."""
        wanted = step % self._every_steps == 0 or step == self._last_step
        return wanted and step not in self._done

    def run(self, step: int, save: Callable[[Path], None]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Validate the policy after `step`, and save its adapter if it is the best so far.

        Args:
            step: Optimiser steps done.
            save: Writes the adapter to a folder.

        Returns:
            The row of this validation and the best one so far.
        """
        state, started = RandomState(), time.perf_counter()
        try:
            scores = self._score()
        finally:
            state.restore()
        seconds = round(time.perf_counter() - started, 4)
        row = {"step": step, **scores, "seconds": seconds}
        if self.best is None or row[SCORE] > self.best[SCORE]:
            with self._folder.staged(BEST) as path:
                path.mkdir()
                save(path)
                (path / VALIDATION_ROW).write_text(
                    dump_json(row, indent=2) + "\n", encoding="utf-8"
                )
            self.best = row
        # After the adapter, so that a run killed in between validates this step again.
        self._folder.append(VALIDATION, [row])
        self._done.add(step)
        return row, self.best


def read_best(folder: RunFolder) -> dict[str, Any] | None:
    """Return the validation row of the best adapter, or None if there is none."""
    path = folder.best / VALIDATION_ROW
    if not path.exists():
        return None
    with folder.reading(f"{BEST}/{VALIDATION_ROW}"):
        row = folder.read_json(f"{BEST}/{VALIDATION_ROW}")
        return {**row, "step": int(row["step"]), SCORE: float(row[SCORE])}
