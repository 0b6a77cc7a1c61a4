from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rsearch_cli.services import singleflight as flight
from rsearch_cli.services.singleflight import SingleFlight

PATIENCE = 20.0


class Work:
    """Work that is counted, and ends when it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> str:
        self.runs += 1
        self.begun.set()
        await asyncio.sleep(0.01)
        while not self.go_on.is_set():
            await asyncio.sleep(0.001)
        if self.failure is not None:
            raise self.failure
        return f"run {self.runs}"


@pytest.fixture
def work() -> Work:
    return Work()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def test_tasks_of_a_loop_share_one_run(tmp_path: Path, work: Work) -> None:
    singleflight = SingleFlight(tmp_path / "locks")
    work.go_on.set()

    async def main() -> list[str]:
        return await asyncio.gather(*(singleflight.run("key", work) for _ in range(50)))

    results = asyncio.run(main())
    assert results == ["run 1"] * 50
    assert asyncio.run(singleflight.run("key", work)) == "run 2", "it is in flight no more"


def test_other_keys_and_other_folders_are_other_requests(tmp_path: Path, work: Work) -> None:
    work.go_on.set()

    async def main() -> None:
        await asyncio.gather(
            SingleFlight(tmp_path / "a").run("key", work),
            SingleFlight(tmp_path / "a").run("other", work),
            SingleFlight(tmp_path / "b").run("key", work),
        )

    asyncio.run(main())
    assert work.runs == 3


def test_all_who_wait_get_the_failure(tmp_path: Path, work: Work) -> None:
    singleflight = SingleFlight(tmp_path / "locks")
    work.failure = ZeroDivisionError("it failed")
    work.go_on.set()

    async def main() -> list[object]:
        sharing = (singleflight.run("key", work) for _ in range(5))
        return await asyncio.gather(*sharing, return_exceptions=True)

    assert asyncio.run(main()) == [work.failure] * 5
    assert work.runs == 1


def test_the_next_in_line_goes_on_if_the_first_is_cancelled(tmp_path: Path, work: Work) -> None:
    singleflight = SingleFlight(tmp_path / "locks")

    async def main() -> None:
        first = asyncio.create_task(singleflight.run("key", work))
        await until(work.begun.is_set)
        others = [asyncio.create_task(singleflight.run("key", work)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        work.go_on.set()
        assert await asyncio.gather(*others) == ["run 2"] * 3

    asyncio.run(main())


def test_who_waits_can_be_cancelled_alone(tmp_path: Path, work: Work) -> None:
    singleflight = SingleFlight(tmp_path / "locks")

    async def main() -> None:
        first = asyncio.create_task(singleflight.run("key", work))
        await until(work.begun.is_set)
        second = asyncio.create_task(singleflight.run("key", work))
        third = asyncio.create_task(singleflight.run("key", work))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        work.go_on.set()
        assert await asyncio.gather(first, third) == ["run 1"] * 2

    asyncio.run(main())


HOLD = """
import asyncio, sys
from pathlib import Path
from rsearch_cli.services.singleflight import SingleFlight

async def work():
    print("under way", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(SingleFlight(Path(sys.argv[1]) / "locks").run("key", work))
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize("end", ["done", "killed"])
def test_a_process_waits_for_another_that_lives(
    tmp_path: Path, work: Work, start: Start, end: str
) -> None:
    holder = start(HOLD, tmp_path)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "under way\n"
    work.go_on.set()
    asks = threading.Thread(
        target=lambda: asyncio.run(SingleFlight(tmp_path / "locks").run("key", work))
    )
    asks.start()
    asyncio.run(SingleFlight(tmp_path / "locks").run("another key", work))
    time.sleep(5 * flight.POLL_SECONDS)
    assert work.runs == 1, "it did not wait"
    if end == "killed":
        holder.kill()
    else:
        holder.stdin.write("go on\n")
        holder.stdin.flush()
    asks.join(PATIENCE)
    assert work.runs == 2
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("locks", 0)]


def test_the_wait_for_a_lock_ends(
    tmp_path: Path, work: Work, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = start(HOLD, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "under way\n"
    monkeypatch.setattr(flight, "MAX_WAIT_SECONDS", 0.05)
    work.go_on.set()
    assert asyncio.run(SingleFlight(tmp_path / "locks").run("key", work)) == "run 1"


def test_within_one_process_no_lock_is_taken(tmp_path: Path, work: Work) -> None:
    work.go_on.set()
    singleflight = SingleFlight(None)
    assert asyncio.run(singleflight.run("key", work)) == "run 1"
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_had_the_work_is_done(tmp_path: Path, work: Work) -> None:
    (tmp_path / "file").touch()
    work.go_on.set()
    assert asyncio.run(SingleFlight(tmp_path / "file" / "locks").run("key", work)) == "run 1"
