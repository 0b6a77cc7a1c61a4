"""What each step has paid for, whatever was stopped and repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.services.budget import Budget
from rsearch_cli.training.step_spend import StepSpend


@contextmanager
def process(path: Path) -> Iterator[tuple[StepSpend, Budget]]:
    """A process of one run; without `end` it is killed."""
    path.mkdir(exist_ok=True)
    with Budget(path) as budget:
        yield StepSpend(RunFolder(path), budget), budget


def pay(budget: Budget, calls: int) -> None:
    for _ in range(calls):
        budget.reserve("exa", 0.01).settle(0.01)


def calls_since(spend, budget: Budget) -> int:
    now, start = (each.services.get("exa") for each in (budget.snapshot(), spend))
    return (now.calls if now else 0) - (start.calls if start else 0)


def take_step(steps: StepSpend, budget: Budget, step: int, start, calls: int):
    """Pay for a step to its end; return its calls in all attempts, and the start of the next."""
    pay(budget, calls)
    paid = calls_since(start, budget)
    return paid, steps.finish(step, start, budget.snapshot())


def test_repeated_steps_have_paid_for_what_their_attempts_have_paid_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with process(run) as (steps, budget):
        pay(budget, 5)  # an evaluation
        start = steps.resume(1)
        paid, start = take_step(steps, budget, 1, start, 3)
        assert paid == 3
        paid, start = take_step(steps, budget, 2, start, 4)
        assert paid == 4
        pay(budget, 2)  # of step 3, which is stopped
    # Only step 1 was saved: step 2 is repeated from the cache, and stopped again.
    with process(run) as (steps, budget):
        pay(budget, 1)  # a first call, before the training
        start = steps.resume(2)
        assert calls_since(start, budget) == 4
        pay(budget, 1)
    with process(run) as (steps, budget):
        start = steps.resume(2)
        paid, start = take_step(steps, budget, 2, start, 0)
        assert paid == 5
        paid, start = take_step(steps, budget, 3, start, 6)
        assert paid == 2 + 6
        steps.begin(0)
        pay(budget, 7)  # a validation, or what comes after the training
    with process(run) as (steps, budget):
        start = steps.resume(4)
        assert calls_since(start, budget) == 0
        rows = [json.loads(row) for row in (run / "spend_by_step.jsonl").read_text().splitlines()]
        paid_by_step = {row["step"]: row["paid"].get("exa", {}).get("calls", 0) for row in rows}
        assert paid_by_step == {1: 3, 2: 5, 3: 8, 4: 0, 0: 7}
        assert sum(paid_by_step.values()) + 5 + 1 == budget.snapshot().services["exa"].calls


def test_a_run_without_the_record_begins_with_what_is_spent(tmp_path: Path) -> None:
    with process(tmp_path / "run") as (_, budget):
        pay(budget, 5)
    with process(tmp_path / "run") as (steps, budget):
        assert calls_since(steps.resume(3), budget) == 0


def test_a_row_that_a_kill_cut_off_hides_no_later_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with process(run) as (steps, budget):
        take_step(steps, budget, 1, steps.resume(1), 3)
    with (run / "spend_by_step.jsonl").open("a") as file:
        file.write('{"step": 2, "pa')
    RunFolder(run).keep_rows_until(0)
    with process(run) as (steps, budget):
        paid, start = take_step(steps, budget, 1, steps.resume(1), 2)
        assert paid == 3 + 2
        take_step(steps, budget, 2, start, 4)
    with process(run) as (steps, budget):
        assert calls_since(steps.resume(2), budget) == 4
