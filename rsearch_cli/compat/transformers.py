"""Private reaches into transformers, checked on 5.17."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rsearch_cli.errors import PolicyError


@contextmanager
def missing_weights_refused(model: str) -> Iterator[None]:
    """Refuse to load a model that lacks weights, inside a `with` block.

    transformers draws them at random and logs a warning. Its `output_loading_info` is out of reach
    where Unsloth makes the call.

    Args:
        model: Folder or Hub id, for the message.

    Raises:
        PolicyError: Naming one of the weights.
    """
    from transformers import modeling_utils

    report = modeling_utils.log_state_dict_report

    def check(*args: Any, **kwargs: Any) -> None:
        lacking = sorted(kwargs["loading_info"].missing_and_mismatched())
        if lacking:
            raise PolicyError(
                f"policy.model: {model} lacks {len(lacking)} of the weights that its config.json "
                f"describes, such as {lacking[0]}, or has them in another shape; copy or download "
                "both again"
            )
        report(*args, **kwargs)

    modeling_utils.log_state_dict_report = check
    try:
        yield
    finally:
        modeling_utils.log_state_dict_report = report
