"""What each step has paid for, attempts that were stopped included.

A resumed run finds in the cache what the steps that it repeats have already paid for. Without this
record those steps would seem free, and what they had paid for would belong to none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rsearch_cli.runs.files import SPEND_BY_STEP
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.spend import ServiceSpend, Spend

Services = Mapping[str, ServiceSpend]


class StepSpend:
    """The spending of one run by step, stored in `spend_by_step.jsonl`.

    A row says what a step has paid for until then, and what the run had spent by then. The last row
    is that of the step in progress: whatever was spent after it belongs to that step. Step 0 stands
    for all that belongs to no step, such as validations.

    Args:
        folder: The run folder.
        budget: What the run has spent.
    """

    def __init__(self, folder: RunFolder, budget: Budget) -> None:
        self._folder = folder
        self._budget = budget
        self._paid: dict[int, Services] = {}
        with folder.reading(SPEND_BY_STEP):
            rows = folder.read_rows(SPEND_BY_STEP)
            for row in rows:
                self._paid[int(row["step"])] = _read(row["paid"])
            self._last = (int(rows[-1]["step"]), _read(rows[-1]["spent"])) if rows else None

    def resume(self, step: int) -> Spend:
        """Book what was spent on the step that was stopped, and begin a step.

        Args:
            step: The step that begins.

        Returns:
            As `begin`.
        """
        booked = []
        if self._last is not None:
            stopped, spent = self._last
            # Not what this process has spent since, such as on a first call to the judge.
            unbooked = _add(self._budget.earlier().services, spent, times=-1)
            self._paid[stopped] = _add(self._paid[stopped], unbooked)
            booked = [stopped]
        return self._begin(step, self._budget.snapshot(), booked)

    def begin(self, step: int) -> Spend:
        """Begin a step now.

        Args:
            step: The step, from 1; or 0, see the class.

        Returns:
            A spend so much below that of the run as the step has already paid for: the difference
            to the spend of the run is what all attempts at the step have paid for.
        """
        return self._begin(step, self._budget.snapshot())

    def finish(self, step: int, start: Spend, now: Spend) -> Spend:
        """Book what a finished step has paid for, and begin the next one.

        Args:
            step: The step.
            start: What `begin` returned for it.
            now: The spend of the run.

        Returns:
            As `begin`.
        """
        self._paid[step] = _add(now.services, start.services, times=-1)
        return self._begin(step + 1, now, [step])

    def _begin(self, step: int, now: Spend, booked: Sequence[int] = ()) -> Spend:
        """Store the rows of steps that were booked, and of the step that begins."""
        paid = self._paid.setdefault(step, {})
        rows = [
            {"step": of, "paid": _write(self._paid[of]), "spent": _write(now.services)}
            for of in (*booked, step)
        ]
        self._folder.append(SPEND_BY_STEP, rows)
        return Spend(_add(now.services, paid, times=-1))


def _add(first: Services, second: Services, times: int = 1) -> dict[str, ServiceSpend]:
    """Return the sum of two spends by service; with `times` -1 their difference."""
    total = {name: replace(spend) for name, spend in first.items()}
    for name, spend in second.items():
        total.setdefault(name, ServiceSpend()).add(spend, times)
    return total


def _write(services: Services) -> dict[str, dict[str, float]]:
    return {name: asdict(spend) for name, spend in services.items()}


def _read(services: Mapping[str, Mapping[str, Any]]) -> dict[str, ServiceSpend]:
    return {name: ServiceSpend(**numbers) for name, numbers in services.items()}
