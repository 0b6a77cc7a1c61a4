"""The limit on failures: `budget.max_failed_share`, for evaluations and for training steps.

Figures made while a service was down would describe the service and not the agent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsearch_cli.errors import FailureShareExceeded


@dataclass(frozen=True, slots=True)
class Failures:
    """How many requests of one kind failed after all retries.

    Attributes:
        kind: What failed, in the plural: `searches`, `verdicts`, `answers`.
        failed: How many failed.
        total: How many there were.
        last_error: Error of the last one, or None.
    """

    kind: str
    failed: int
    total: int
    last_error: str | None

    @property
    def share(self) -> float:
        """The failed share in [0, 1]; 0 of nothing."""
        return self.failed / max(1, self.total)


def check_failed_share(
    counts: Iterable[Failures], limit: float, where: str, next_step: str = ""
) -> None:
    """Raise an error if more than the permitted share of any kind of request failed.

    Args:
        counts: One count per kind of request.
        limit: `budget.max_failed_share`, in [0, 1].
        where: What the requests belong to, such as `the evaluation`.
        next_step: What to do about it, appended to the message.

    Raises:
        FailureShareExceeded: Names the kind, the counts, the limit and the last error.
    """
    for count in counts:
        if count.share > limit:
            raise FailureShareExceeded(
                f"{count.failed} of {count.total} {count.kind} of {where} failed, a share of "
                f"{count.share:.2g}; budget.max_failed_share is {limit:g}; last error: "
                f"{count.last_error or 'unknown'}{'; ' if next_step else ''}{next_step}"
            )
