"""Side effects of importing Unsloth, and the entropy that its GRPO trainer does not log.

Checked on unsloth 2026.10.9. Unsloth patches trl, transformers and peft when it is imported, so it
must be imported before them.
"""

from __future__ import annotations

import atexit
import math
import os
import tempfile
from functools import cache
from typing import Any

from rsearch_cli.compat.isolation import OwnEnvironment, output_to_log, process_state_kept
from rsearch_cli.errors import first_line

CPU_BACKEND_SINCE = (2026, 10, 9)

# Just under 1: Unsloth computes token entropies only if tokens are to be selected by them.
_ENTROPY_QUANTILE = math.nextafter(1.0, 0.0)

_environment = OwnEnvironment()
unsloth_environment = _environment.applied
"""Context manager that sets Unsloth's environment variables; Unsloth reads some of them again
whenever it generates or trains."""


@cache
def _generated_code() -> str:
    """Return a folder for the code that Unsloth generates, by default in the working directory.

    Each process has its own, removed when it ends: two processes that write the same files at the
    same time can read each other's unfinished ones.
    """
    folder = tempfile.TemporaryDirectory(prefix="rsearch-unsloth-")
    atexit.register(folder.cleanup)
    return folder.name


def start_unsloth() -> str | None:
    """Import Unsloth and undo what the import does to the rest of the process.

    Builds before 2026.10.9 raise on a machine without an accelerator, and only after eight seconds
    of patching, so they are recognised by their version instead of by the import.

    Returns:
        Why Unsloth cannot run here, or None if it can.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("unsloth")
    except PackageNotFoundError:
        return "unsloth is not installed"
    import torch

    numbers = tuple(int(n) for n in installed.split(".")[:3] if n.isdigit())
    if not torch.accelerator.is_available() and numbers < CPU_BACKEND_SINCE:
        return f"unsloth {installed} needs a GPU (2026.10.9 and later also run on a CPU)"
    with unsloth_environment(), process_state_kept(), output_to_log("unsloth"):
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", _generated_code())
        try:
            import unsloth  # noqa: F401
        except (ImportError, NotImplementedError, RuntimeError) as error:
            return f"unsloth {installed} cannot be imported: {first_line(error)}"
    return None


def with_entropy(trainer_class: Any) -> Any:
    """Return a subclass of a GRPO trainer that logs the token entropy.

    TRL's own trainer does, and is returned unchanged. Unsloth's rewritten one computes the entropy
    only to select tokens by it (`top_entropy_quantile` under 1); the subclass selects them all.
    """
    if not trainer_class.__name__.startswith("Unsloth"):
        return trainer_class
    import torch

    class Trainer(trainer_class):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.args.top_entropy_quantile = _ENTROPY_QUANTILE

        def get_high_entropy_mask(self, entropies: Any, mask: Any, threshold: float) -> Any:
            """Log the mean entropy of the tokens that are trained on, and select all of them.

            Args:
                entropies: `[B, T]` of the whole distribution at each token, in nats.
                mask: `[B, T]` 1 for a token that the policy wrote, else 0.
                threshold: Quantile below which a token would be left out; not used.

            Returns:
                `[B, T]` bool, true for every token of `mask`.
            """
            # Unsloth reads this source and, on several ranks, leaves out a method that gathers.
            trained = mask.bool()
            sums = torch.stack([entropies[trained].sum(), trained.sum()])
            total, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
            if tokens:  # otherwise all of them are cut off, and 0 nats would raise an alarm
                mode = "train" if self.model.training else "eval"
                self._metrics[mode]["entropy"].append(total / tokens)
            return trained

    return Trainer
