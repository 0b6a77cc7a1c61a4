"""Saves the last finished step when the next one cannot be finished.

The error comes before the step's update, so weights and optimiser are still those of the last step.
Only the random generators have advanced; they are restored first, so that a resumed run equals one
without the stop.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rsearch_cli.compat.trl import save_checkpoint
from rsearch_cli.errors import RsearchError, RunUnsaved
from rsearch_cli.evaluation.failed_share import Failures, check_failed_share
from rsearch_cli.runs.files import checkpoint_name
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.training.step_metrics import count_unscored
from rsearch_cli.types import RewardParts, Trajectory


class StepRecovery:
    """Guards the steps of one training run.

    Args:
        folder: Where checkpoints are written.
        max_failed_share: Share in [0, 1] of a step's searches, or of its verdicts, that may fail.
    """

    def __init__(self, folder: RunFolder, max_failed_share: float) -> None:
        self._folder = folder
        self._max_failed_share = max_failed_share
        self._random: RandomState | None = None

    def remember(self) -> None:
        """Remember the state of the random generators at the end of a step."""
        self._random = RandomState()

    @contextmanager
    def watch(self, trainer: Any) -> Iterator[None]:
        """Save the last finished step if the block raises.

        Raises:
            RsearchError: The error of the block, of the same class, with where the run stands.
        """
        try:
            yield
        except RsearchError as error:
            raise type(error)(f"{error}; {self._save(trainer)}") from error

    def check(
        self,
        trajectories: Sequence[Trajectory],
        parts: Sequence[RewardParts],
        judge_failure: str | None = None,
    ) -> None:
        """Refuse to train on a step with too many failed searches or verdicts.

        Args:
            trajectories: `[B*G]` rollouts of the step.
            parts: `[B*G]` their rewards.
            judge_failure: Why the last verdict failed, in one line, or None.

        Raises:
            FailureShareExceeded: Too many failed; gives the number, the share and the last reason.
        """
        results = [r for t in trajectories for round_ in t.rounds for r in round_.results]
        errors = [r.error for r in results if r.error is not None]
        unscored = count_unscored(trajectories, parts)
        failures = [
            part.failure
            for trajectory, part in zip(trajectories, parts, strict=True)
            if part.failure and not trajectory.failed_searches  # those count as searches
        ]
        counts = (
            Failures("searches", len(errors), len(results), errors[-1] if errors else None),
            Failures("verdicts", unscored, len(parts), judge_failure),
            Failures("reward parts", len(failures), len(parts), failures[-1] if failures else None),
        )
        check_failed_share(counts, self._max_failed_share, "the step")

    def _save(self, trainer: Any) -> str:
        """Save the last finished step if it is not saved, and return where the run stands."""
        step = trainer.state.global_step
        saved = self._folder.path / checkpoint_name(step)
        if step == 0:
            return "no step was finished; --resume starts with the first step"
        if self._random is not None and not saved.exists():
            self._random.restore()
            try:
                save_checkpoint(trainer)
            except RunUnsaved as unsaved:
                return str(unsaved)
        return f"{step} steps are finished and saved in {saved}; --resume continues from there"


class RandomState:
    """A snapshot of all random generators that a checkpoint stores."""

    def __init__(self) -> None:
        import numpy
        import torch

        self._python = random.getstate()
        self._numpy = numpy.random.get_state()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self) -> None:
        """Restore the generators."""
        import numpy
        import torch

        random.setstate(self._python)
        numpy.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        torch.cuda.set_rng_state_all(self._cuda)
