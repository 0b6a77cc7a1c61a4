"""Validation: how good the policy is every few steps, and the best adapter so far, kept.

Place in the path: between two steps of training, which it must not disturb: the random generators
are put back, and neither its time nor its spend counts for a step. On failure: an error of the
evaluation goes on as itself; the best adapter is written whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rsearch_cli.runs.files import BEST, VALIDATION
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.step_recovery import RandomState

SCORE = "f1"
"""The figure that decides: over a small slice it is finer than exact match."""
BEST_STEP = "validation.json"

Judge = Callable[[], Mapping[str, Any]]


class Validation:
    """The validations of one training.

    Args:
        judge: Evaluates the policy greedily on the slice; gives the means, `f1` among them.
        folder: Where rows and the best adapter go.
        every_steps: Steps between two validations, from step 0 on; the last step has one too.
        last_step: Optimiser steps of the whole run.
        on_row: Told of every row and of the best one so far.

    Attributes:
        best: The row of the best validation so far, or None. Of equal ones the first is kept.
    """

    def __init__(
        self,
        judge: Judge,
        folder: RunFolder,
        every_steps: int,
        last_step: int,
        on_row: Callable[[dict[str, Any], dict[str, Any]], None],
    ) -> None:
        self._judge = judge
        self._folder = folder
        self._every_steps = every_steps
        self._last_step = last_step
        self._on_row = on_row
        with folder.reading(VALIDATION):
            self._done = {int(row["step"]) for row in folder.read_rows(VALIDATION)}
        self.best = read_best(folder)

    def is_due(self, step: int) -> bool:
        """Whether the policy has to be validated after `step`, and was not."""
        wanted = step % self._every_steps == 0 or step == self._last_step
        return wanted and step not in self._done

    def run(self, step: int, save: Callable[[Path], None]) -> None:
        """Validate the policy as it is after `step`; keep it if it is the best so far.

        Args:
            step: Optimiser steps done.
            save: Writes the adapter into a folder.
        """
        state, started = RandomState(), time.perf_counter()
        try:
            scores = self._judge()
        finally:
            state.restore()
        seconds = round(time.perf_counter() - started, 4)
        row = {"step": step, **scores, "seconds": seconds}
        if self.best is None or row[SCORE] > self.best[SCORE]:
            with self._folder.staged(BEST) as path:
                path.mkdir()
                save(path)
                (path / BEST_STEP).write_text(dump_json(row, indent=2) + "\n", encoding="utf-8")
            self.best = row
        # After the adapter: a run that is killed in between validates this step again.
        self._folder.append(VALIDATION, [row])
        self._done.add(step)
        self._on_row(row, self.best)


def read_best(folder: RunFolder) -> dict[str, Any] | None:
    """The validation row that the kept adapter had, or None if there is none."""
    path = folder.best / BEST_STEP
    if not path.exists():
        return None
    with folder.reading(f"{BEST}/{BEST_STEP}"):
        row = folder.read_json(f"{BEST}/{BEST_STEP}")
        return {**row, "step": int(row["step"]), SCORE: float(row[SCORE])}
