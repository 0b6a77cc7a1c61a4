"""Private parts of transformers' `Trainer`, which TRL's trainers extend.

Checked on transformers 5.17.0 and trl 1.14.2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any


def with_staged_checkpoints(
    trainer_class: Any, staging: Path, place: Callable[[int], AbstractContextManager[Any]]
) -> Any:
    """Return a subclass whose checkpoints are written to `staging`, inside a context manager.

    The `Trainer` writes a checkpoint file by file under its final name, so a kill leaves half of
    one. It has no public hook around that write.

    Args:
        trainer_class: `Trainer` or a subclass.
        staging: Folder that takes the place of `output_dir`; the trainer adds `checkpoint-N`.
        place: Called with the step; returns the context that moves the checkpoint to its place.
    """

    class Trainer(trainer_class):
        def _get_output_dir(self, trial: Any) -> str:
            return str(staging)

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            with place(self.state.global_step):
                super()._save_checkpoint(model, trial)

    return Trainer


def save_checkpoint(trainer: Any) -> None:
    """Save a checkpoint now; the `Trainer` has no public way except at the end of a step."""
    trainer._save_checkpoint(trainer.model, trial=None)
