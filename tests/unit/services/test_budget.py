from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rsearch_cli.errors import BudgetExceeded, RunFolderError, RunFolderUnwritable
from rsearch_cli.runs.files import SPEND
from rsearch_cli.services.budget import Bill, Budget, Hold, billed_to
from rsearch_cli.services.spend import ServiceSpend, Spend, SpendFile, SpendState

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["folder", "memory"])
def run_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "run" if request.param == "folder" else None


def try_to_reserve(budget: Budget, service: str, usd: float) -> Hold | None:
    """The reservation of a call, or None if it would have to wait."""

    async def main() -> Hold | None:
        task = asyncio.create_task(budget.wait_and_reserve(service, usd))
        for _ in range(3):
            await asyncio.sleep(0)
        return await task if task.done() else None

    return asyncio.run(main())


def test_what_is_put_by_counts_until_it_is_settled(run_folder: Path | None) -> None:
    with Budget(run_folder, 1.0) as budget:
        first, second = budget.reserve("exa", 0.4), budget.reserve("judge", 0.6)
        with pytest.raises(BudgetExceeded) as caught:
            budget.reserve("exa", 0.01)
        assert str(caught.value) == (
            "the next call could cost $0.0100, and $1.0000 of budget.max_usd $1.0000 is spent or in"
            " flight; to continue, raise budget.max_usd and start again (rsearch train: with "
            "--resume)"
        )
        first.settle(0.1)
        second.cancel()
        budget.reserve("exa", 0.9)
        spend = budget.snapshot()
    assert spend.max_usd == 1.0
    assert spend.services["exa"].usd == pytest.approx(1.0)
    assert spend.services["judge"] == ServiceSpend(usd=0.0, calls=1)
    assert (spend.total.usd, spend.total.calls) == (pytest.approx(1.0), 3)


def test_a_limit_is_reached_exactly(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 0.5)
    for _ in range(100):
        budget.reserve("exa", 0.005).settle(0.005)
    with pytest.raises(BudgetExceeded):
        budget.reserve("exa", 0.005)
    assert budget.snapshot().total.usd == pytest.approx(0.5)


def test_a_higher_charge_is_booked_and_expected_from_then_on(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 1.0)
    budget.reserve("exa", 0.01).settle(0.03)
    assert budget.snapshot().total.usd == pytest.approx(0.03)
    # The excess of 0.02 counts twice: 0.05 for each call, until it is settled.
    held = [budget.reserve("exa", 0.01) for _ in range(19)]
    assert budget.snapshot().total.usd == pytest.approx(0.03 + 19 * 0.05)
    with pytest.raises(BudgetExceeded, match=r"the next call could cost \$0\.0500, and \$0\.9800"):
        budget.reserve("exa", 0.01)
    budget.reserve("judge", 0.01).cancel()
    for hold in held:
        assert hold.settle(0.02) == 0.02
    assert budget.snapshot().total.usd == pytest.approx(0.03 + 19 * 0.02)


def test_a_lower_charge_is_booked_as_it_is(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 1.0)
    budget.reserve("exa", 0.9).settle(0.002)
    budget.reserve("exa", 0.9).settle(0)
    assert budget.snapshot().total.usd == pytest.approx(0.002)
    budget.reserve("exa", 0.9)


def test_a_service_that_was_thought_to_be_free_is_held_to_the_limit(
    run_folder: Path | None,
) -> None:
    budget = Budget(run_folder, 0.05)
    budget.reserve("mine", 0.0).settle(0.02)
    with pytest.raises(BudgetExceeded, match=r"the next call could cost \$0\.0400"):
        budget.reserve("mine", 0.0)


def test_what_was_lost_counts_at_the_highest_price_that_is_ever_seen(
    run_folder: Path | None,
) -> None:
    budget = Budget(run_folder, 1.0)
    assert budget.reserve("exa", 0.01).forfeit() == 0.01
    budget.reserve("exa", 0.01)
    assert budget.snapshot().total.usd == pytest.approx(0.02)
    budget.reserve("exa", 0.01).settle(0.03)
    assert budget.snapshot().total.usd == pytest.approx(2 * 0.05 + 0.03)
    assert budget.reserve("exa", 0.01).forfeit() == pytest.approx(0.05)


@pytest.mark.parametrize("charge", [-0.01, float("nan"), float("inf"), 1e9, 10**400, True, "1", []])
def test_a_charge_that_is_no_amount_counts_what_was_put_by(
    run_folder: Path | None, charge: object, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = Budget(run_folder, 1.0)
    for _ in range(2):
        assert budget.reserve("exa", 0.01).settle(charge) == 0.01
    assert budget.snapshot().total.usd == pytest.approx(0.02)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: exa says that a call cost ")
    assert line.endswith(" USD, which is not credible; the budget counts $0.0100 for it")


def test_calls_in_flight_leave_room_for_a_price_that_rises_fourfold(
    run_folder: Path | None,
) -> None:
    budget = Budget(run_folder, 1.0)
    budget.reserve("exa", 0.1).settle(0.1)
    first = try_to_reserve(budget, "exa", 0.1)
    second = try_to_reserve(budget, "exa", 0.1)
    assert first is not None and second is not None
    assert try_to_reserve(budget, "exa", 0.1) is None, "three of 0.4 would not fit"
    assert try_to_reserve(budget, "judge", 0.0) is not None, "what is free needs no room"
    first.settle(0.4)
    second.settle(0.4)
    assert budget.snapshot().total.usd == pytest.approx(0.9)
    with pytest.raises(BudgetExceeded):
        budget.reserve("exa", 0.1)


def test_until_a_price_is_known_few_calls_are_in_flight(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 1000.0)
    held = [try_to_reserve(budget, "exa", 0.01) for _ in range(4)]
    assert None not in held
    assert try_to_reserve(budget, "exa", 0.01) is None
    assert try_to_reserve(budget, "judge", 0.01) is not None
    assert held[0] is not None
    held[0].forfeit()
    assert try_to_reserve(budget, "exa", 0.01) is not None
    assert try_to_reserve(budget, "exa", 0.01) is None, "a call that was lost has told no price"
    assert held[1] is not None
    held[1].settle(None)
    assert all(try_to_reserve(budget, "exa", 0.01) is not None for _ in range(32))


def test_the_end_of_a_call_lets_the_next_one_start(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 1.0)

    async def main() -> list[Hold]:
        hold = await budget.wait_and_reserve("exa", 0.2)
        waiting = [asyncio.create_task(budget.wait_and_reserve("exa", 0.2)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting), "two of 0.8 would not fit"
        hold.settle(0.2)
        [first], _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        first.result().settle(0.2)
        return [await asyncio.wait_for(task, 5) for task in waiting]

    asyncio.run(main())[1].settle(0.2)
    assert budget.snapshot().total == ServiceSpend(usd=pytest.approx(0.6), calls=3)


def test_calls_that_start_together_share_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = SpendFile.write

    def count(file: SpendFile, state: SpendState) -> None:
        written.append(state.services["exa"].calls)
        write(file, state)

    monkeypatch.setattr(SpendFile, "write", count)
    budget, bills = Budget(tmp_path, 1000.0), [Bill() for _ in range(4)]

    async def call(bill: Bill) -> None:
        with billed_to(bill):
            hold = await budget.wait_and_reserve("exa", 0.01)
        assert written == [4], "a call must not be sent before its reservation is stored"
        hold.settle(0.005)

    async def main() -> None:
        await asyncio.gather(*map(call, bills))

    asyncio.run(main())
    assert bills == [Bill(0.005)] * 4, "each pays its own"


def test_calls_that_start_together_do_not_pass_the_limit_together(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 1.0)

    async def main() -> list[Hold]:
        calls = [asyncio.create_task(budget.wait_and_reserve("exa", 0.1)) for _ in range(9)]
        await asyncio.sleep(0.01)
        held = [call.result() for call in calls if call.done()]
        for call in calls:
            call.cancel()
        return held

    assert len(asyncio.run(main())) == 2, "three of 0.4 would not fit"
    assert budget.snapshot().total == ServiceSpend(usd=pytest.approx(0.2), calls=2)


@pytest.mark.parametrize("granted", [False, True])
def test_a_call_that_is_cancelled_while_it_waits_costs_nothing(
    run_folder: Path | None, granted: bool
) -> None:
    budget = Budget(run_folder, 1.0)

    async def main() -> None:
        task = asyncio.create_task(budget.wait_and_reserve("exa", 0.2))
        # The first turn lets the task ask, the second one grants it the reservation.
        for _ in range(2 if granted else 1):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(budget.wait_and_reserve("exa", 1.0), 5)

    asyncio.run(main())
    assert budget.snapshot().services["exa"].calls == 1


def test_without_a_limit_nothing_waits(run_folder: Path | None) -> None:
    budget = Budget(run_folder)
    assert all(try_to_reserve(budget, "exa", 5.0) is not None for _ in range(32))


def test_the_last_call_is_sent_alone_and_up_to_the_limit(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 0.5)
    sent = 0
    with pytest.raises(BudgetExceeded):
        while True:
            hold = try_to_reserve(budget, "exa", 0.005)
            assert hold is not None
            hold.settle(0.005)
            sent += 1
    assert sent == 100


def test_a_resumed_run_knows_the_price_and_the_calls_that_were_lost(tmp_path: Path) -> None:
    with Budget(tmp_path, 1.0) as budget:
        budget.reserve("exa", 0.01)
        budget.reserve("exa", 0.01).settle(0.03)
    with Budget(tmp_path, 1.0) as budget:
        assert budget.snapshot().total.usd == pytest.approx(0.05 + 0.03)
        budget.reserve("exa", 0.01)
        assert budget.snapshot().total.usd == pytest.approx(2 * 0.05 + 0.03)
    state = json.loads((tmp_path / SPEND).read_text())
    assert (state["unsettled"], state["excess"]) == ({"exa": 2}, {"exa": pytest.approx(0.02)})


def test_the_state_of_an_earlier_version_is_taken(tmp_path: Path) -> None:
    numbers = {"usd": 0.75, "saved_usd": 0.1, "calls": 3, "hits": 2, "failed": 1}
    (tmp_path / SPEND).write_text(json.dumps({"version": 1, "services": {"exa": numbers}}))
    budget = Budget(tmp_path, 1.0)
    assert budget.snapshot().services == {"exa": ServiceSpend(0.75, 0.1, 3, 2, 1)}
    budget.reserve("exa", 0.25)


def test_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    Budget(tmp_path / "runs" / "one").reserve("exa", 0.1)
    assert (tmp_path / "runs" / "one").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "runs" / "one" / SPEND).stat().st_mode & 0o777 == 0o600


def test_what_is_free_needs_no_money(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 0.0)
    budget.reserve("judge", 0.0).settle(0.0)
    with pytest.raises(BudgetExceeded):
        budget.reserve("judge", 1e-6)
    assert budget.snapshot().services["judge"].calls == 1


def test_without_a_limit_all_is_counted(run_folder: Path | None) -> None:
    budget = Budget(run_folder)
    budget.reserve("exa", 5.0).settle(7.0)
    budget.count_hit("exa", 0.5)
    budget.count_hit("exa", 0.0)
    budget.count_failure("exa")
    expected = ServiceSpend(usd=7.0, saved_usd=0.5, calls=1, hits=2, failed=1)
    assert budget.snapshot() == Spend({"exa": expected}, None)


def test_a_snapshot_stays_as_it_was(run_folder: Path | None) -> None:
    budget = Budget(run_folder)
    budget.reserve("exa", 1.0)
    before = budget.snapshot()
    budget.reserve("exa", 1.0)
    assert (before.total.usd, budget.snapshot().total.usd) == (1.0, 2.0)


def test_threads_never_pass_the_limit(run_folder: Path | None) -> None:
    budget = Budget(run_folder, 0.5)
    taken: list[float] = []

    def spend() -> None:
        for _ in range(20):
            try:
                budget.reserve("exa", 0.01).settle(0.01)
                taken.append(0.01)
            except BudgetExceeded:
                return

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 50


def test_a_resumed_run_goes_on_from_the_state(tmp_path: Path) -> None:
    with Budget(tmp_path, 1.0) as budget:
        budget.reserve("exa", 0.75).settle(0.75)
        for _ in range(3):
            budget.count_hit("exa", 0.0)
    with Budget(tmp_path, 1.0) as budget:
        assert budget.snapshot().services["exa"] == ServiceSpend(usd=0.75, calls=1, hits=3)
        with pytest.raises(BudgetExceeded, match=r"\$0\.7500 of budget\.max_usd"):
            budget.reserve("exa", 0.5)
    Budget(tmp_path, 2.0).reserve("exa", 0.5)


def test_the_state_is_one_json_document(tmp_path: Path) -> None:
    budget = Budget(tmp_path)
    budget.reserve("exa", 12345.0)
    budget.reserve("judge", 0.5).settle(0.25)
    budget.snapshot()
    state = json.loads((tmp_path / SPEND).read_text())
    assert state["services"]["judge"]["usd"] == 0.25
    assert state["services"]["exa"]["usd"] == 12345.0


def test_what_a_call_cost_is_stored_with_the_next_call_and_after_the_last(tmp_path: Path) -> None:
    def stored() -> tuple[float, int]:
        state = json.loads((tmp_path / SPEND).read_text())
        return state["services"]["exa"]["usd"], state["unsettled"]["exa"]

    budget = Budget(tmp_path)
    first, second = budget.reserve("exa", 0.5), budget.reserve("exa", 0.5)
    first.settle(0.25)
    assert stored() == (1.0, 2)  # a kill now costs at most what was reserved
    third = budget.reserve("exa", 0.5)
    assert stored() == (1.25, 2)
    second.settle(0.75)  # more than was reserved: other processes have to know at once
    assert stored() == (1.5, 1)
    third.settle(0.25)
    assert stored() == (1.25, 0)


@pytest.mark.parametrize("end", [Hold.cancel, Hold.forfeit])
def test_the_last_call_to_end_stores_what_the_others_cost(
    tmp_path: Path, end: Callable[[Hold], float]
) -> None:
    budget = Budget(tmp_path)
    paid, free = budget.reserve("exa", 0.01), budget.reserve("judge", 0.0)
    paid.settle(0.002)
    end(free)
    state = json.loads((tmp_path / SPEND).read_text())
    assert state["services"]["exa"]["usd"] == pytest.approx(0.002)
    assert state["unsettled"]["exa"] == 0


def test_calls_that_cost_nothing_leave_the_disk_alone(tmp_path: Path) -> None:
    budget = Budget(tmp_path)
    first, second = budget.reserve("judge", 0.0), budget.reserve("judge", 0.0)
    first.settle(0.0)
    second.cancel()
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_run_without_a_state_leaves_nothing(tmp_path: Path) -> None:
    with Budget(tmp_path / "run", 1.0) as budget:
        assert budget.snapshot() == Spend({}, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_was_just_begun_is_empty(tmp_path: Path) -> None:
    (tmp_path / SPEND).touch()
    assert Budget(tmp_path).snapshot().total == ServiceSpend()


@pytest.mark.parametrize(
    "state",
    [
        "{",
        "[]",
        "[" * 4000,
        '{"version": 2}',
        '{"version": 1, "services": {"exa": {"euro": 1}}}',
        '{"version": 1, "services": {}, "excess": {"exa": -1}}',
        '{"version": 1, "services": {}, "excess": {"exa": NaN}}',
        '{"version": 1, "services": {}, "unsettled": {"exa": 0.5}}',
        '{"version": 1, "services": {}, "unsettled": {"exa": -3}}',
        '{"version": 1, "services": {}, "unsettled": [3]}',
    ],
)
def test_a_damaged_state_is_no_license(tmp_path: Path, state: str) -> None:
    (tmp_path / SPEND).write_text(state)
    budget = Budget(tmp_path, 1.0)
    with pytest.raises(RunFolderError, match=r"spend\.json does not say what the run has spent"):
        budget.reserve("exa", 0.1)
    assert (tmp_path / SPEND).read_text() == state


def test_a_folder_that_cannot_be_written_stops_the_spending(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunFolderUnwritable, match=r"spend\.json, where the run records"):
        Budget(tmp_path / "run").reserve("exa", 0.1)


def test_a_reservation_that_cannot_be_stored_is_not_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: SpendFile, state: SpendState) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    budget = Budget(tmp_path, 0.1)
    for reserve in (budget.reserve, partial(try_to_reserve, budget)):
        with monkeypatch.context() as full, pytest.raises(RunFolderUnwritable):
            full.setattr(SpendFile, "write", fail)
            reserve("exa", 0.1)
    assert try_to_reserve(budget, "exa", 0.1) is not None


RESERVE = """
import sys
from pathlib import Path
from rsearch_cli.services.budget import Budget
budget = Budget(Path(sys.argv[1]), 1.0)
budget.reserve("exa", 0.1).settle(0.1)
budget.reserve("exa", 0.3)
print("reserved", flush=True)
sys.stdin.readline()
"""


def test_what_a_killed_process_had_in_flight_counts_as_spent(tmp_path: Path, start: Start) -> None:
    process = start(RESERVE, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    process.kill()
    process.wait(30)
    budget = Budget(tmp_path, 1.0)
    assert budget.snapshot().total.usd == pytest.approx(0.4)
    budget.reserve("exa", 0.6)


SPENDING = """
import sys
from pathlib import Path
from rsearch_cli.errors import BudgetExceeded
from rsearch_cli.services.budget import Budget
budget, taken = Budget(Path(sys.argv[1]), 1.0), 0
sys.stdin.readline()
try:
    while True:
        reservation = budget.reserve("exa", 0.01)
        taken += 1
        reservation.settle(0.005)
except BudgetExceeded:
    print(taken)
"""


def test_processes_share_one_limit(tmp_path: Path, start: Start) -> None:
    processes = [start(SPENDING, tmp_path) for _ in range(3)]
    ends = [process.communicate("go\n", timeout=60) for process in processes]
    assert [err for _, err in ends] == [""] * 3
    calls = sum(int(out) for out, _ in ends)
    # The last one to stop has 0.995 behind it, and another call could cost 0.01.
    assert calls == 199
    total = Budget(tmp_path).snapshot().total
    assert total.calls == calls
    assert total.usd == pytest.approx(calls * 0.005)
