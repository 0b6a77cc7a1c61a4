from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rsearch_cli.errors import AccessDenied, BudgetExceeded, OfflineMiss, ServiceFailure
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache, make_key
from rsearch_cli.services.client import Answer, ServiceClient
from rsearch_cli.services.event_loop import EventLoop
from rsearch_cli.services.outcomes import PermanentFailure, Reply, TransientFailure
from rsearch_cli.services.retry import RetryPolicy
from rsearch_cli.services.spend import ServiceSpend

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

Run = Callable[[Coroutine[Any, Any, Any]], Any]
KEY = make_key("exa", query="Port Ellow")
PRICE = 0.005


class Calls:
    """A service that is asked; it does what `script` says, call by call, and then answers."""

    def __init__(self, *script: Exception | float) -> None:
        self.script = list(script)
        self.count = 0
        self.usd = PRICE
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> Reply:
        self.count += 1
        step = self.script.pop(0) if self.script else None
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(step, Exception):
            raise step
        await asyncio.sleep(step or 0.0)
        return Reply({"answer": self.count}, self.usd)


@pytest.fixture
def budget() -> Budget:
    return Budget(None, 1.0)


@pytest.fixture
def client(cache: AnswerCache, budget: Budget, clock: Callable[[], float]) -> ServiceClient:
    settings = ServiceConfig(requests_per_second=10000.0, timeout_seconds=5.0)
    return ServiceClient("exa", cache, budget, RetryPolicy("exa", settings, clock))


def numbers(budget: Budget) -> ServiceSpend:
    spend = budget.snapshot().services["exa"]
    return ServiceSpend(round(spend.usd, 9), round(spend.saved_usd, 9), *counts(spend))


def counts(spend: ServiceSpend) -> tuple[int, int, int]:
    return spend.calls, spend.hits, spend.failed


def test_an_answer_is_bought_once(virtual: Run, client: ServiceClient, budget: Budget) -> None:
    calls = Calls()

    async def main() -> list[Answer]:
        return [await client.fetch(KEY, calls, worst_usd=2 * PRICE) for _ in range(3)]

    first, *others = virtual(main())
    assert first == Answer({"answer": 1}, cached=False, usd=PRICE)
    assert others == [Answer({"answer": 1}, cached=True, usd=0.0)] * 2
    assert calls.count == 1
    assert numbers(budget) == ServiceSpend(PRICE, 2 * PRICE, calls=1, hits=2)


def test_equal_requests_at_once_are_one_call(
    virtual: Run, client: ServiceClient, budget: Budget
) -> None:
    calls = Calls(0.2)

    async def main() -> list[Answer]:
        return await asyncio.gather(*(client.fetch(KEY, calls, worst_usd=PRICE) for _ in range(40)))

    answers = virtual(main())
    assert calls.count == 1
    assert sorted(a.cached for a in answers) == [False] + [True] * 39
    assert numbers(budget) == ServiceSpend(PRICE, 39 * PRICE, calls=1, hits=39)


def test_threads_that_ask_the_same_make_one_call(cache: AnswerCache, budget: Budget) -> None:
    client = ServiceClient(
        "exa", cache, budget, RetryPolicy("exa", ServiceConfig(requests_per_second=10000.0))
    )
    calls, answers = Calls(*[0.2] * 8), []
    at_once = threading.Barrier(8)

    def ask() -> None:
        at_once.wait(10)
        answers.append(loop.run(client.fetch(KEY, calls, worst_usd=PRICE)))

    with EventLoop() as loop:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert calls.count == 1
    assert [a.value for a in answers] == [{"answer": 1}] * 8
    assert sum(a.usd for a in answers) == PRICE


def test_an_answer_is_the_same_whether_new_or_stored(virtual: Run, client: ServiceClient) -> None:
    async def call() -> Reply:
        return Reply({"tuple": (1, 2), 3: "a number as a name"})  # type: ignore[dict-item]

    new = virtual(client.fetch(KEY, call))
    stored = virtual(client.fetch(KEY, call))
    assert new.value == stored.value == {"tuple": [1, 2], "3": "a number as a name"}


def test_retries_are_paid_for_and_told(virtual: Run, client: ServiceClient, budget: Budget) -> None:
    calls = Calls(
        TransientFailure("answered 503", free=True),
        TransientFailure("cut connection"),
        60.0,  # longer than the time-out
    )
    answer = virtual(client.fetch(KEY, calls, worst_usd=2 * PRICE))
    # The one that was refused is free, the two that were cut off may have been charged for.
    assert answer.usd == pytest.approx(2 * 2 * PRICE + PRICE)
    assert numbers(budget) == ServiceSpend(5 * PRICE, 0.0, calls=4)


def test_a_failure_names_its_cause_and_is_never_stored(
    virtual: Run, client: ServiceClient, budget: Budget, cache: AnswerCache
) -> None:
    calls = Calls(*[TransientFailure("answered 503", free=True)] * 6, PermanentFailure("said no"))
    with pytest.raises(ServiceFailure, match=r"^answered 503 \(tried 6 times\)$"):
        virtual(client.fetch(KEY, calls, worst_usd=PRICE))
    assert cache.stats() == {}
    with pytest.raises(ServiceFailure, match=r"^said no$"):
        virtual(client.fetch(KEY, calls, worst_usd=PRICE))
    assert virtual(client.fetch(KEY, calls, worst_usd=PRICE)).value == {"answer": 8}
    assert numbers(budget) == ServiceSpend(2 * PRICE, 0.0, calls=8, failed=2)


def odd_only(value: Any) -> int:
    if not isinstance(value, int) or value % 2 == 0:
        raise ValueError(f"{value} is not odd")
    return value * 100


def test_a_new_answer_that_is_not_valid_is_a_failed_call_and_not_stored(
    virtual: Run, client: ServiceClient, budget: Budget, cache: AnswerCache
) -> None:
    numbers_sent = iter((2, 3))

    async def call() -> Reply:
        return Reply(next(numbers_sent), PRICE)

    with pytest.raises(ServiceFailure, match=r"the answer is not valid \(2 is not odd\)"):
        virtual(client.fetch(KEY, call, worst_usd=PRICE, read=odd_only))
    assert cache.stats() == {}
    answer = virtual(client.fetch(KEY, call, worst_usd=PRICE, read=odd_only))
    assert answer == Answer(300, cached=False, usd=PRICE)
    assert numbers(budget) == ServiceSpend(2 * PRICE, 0.0, calls=2, failed=1)


def test_a_stored_answer_that_is_not_valid_is_dropped_and_asked_for_again(
    virtual: Run, client: ServiceClient, cache: AnswerCache, capsys: pytest.CaptureFixture[str]
) -> None:
    async def call() -> Reply:
        return Reply(5)

    cache.put(KEY, "old and bad")
    assert virtual(client.fetch(KEY, call, read=odd_only)) == Answer(500, False, 0.0)
    assert virtual(client.fetch(KEY, call, read=odd_only)) == Answer(500, True, 0.0)
    assert "an entry cannot be read (old and bad is not odd)" in capsys.readouterr().err


def test_a_stored_answer_that_is_not_valid_is_none_offline(
    virtual: Run, cache: AnswerCache, budget: Budget
) -> None:
    cache.put(KEY, 2)
    with pytest.raises(OfflineMiss):
        virtual(
            offline(cache, budget, RetryPolicy("exa", ServiceConfig())).fetch(
                KEY, Calls(), read=odd_only
            )
        )


def test_a_refused_key_ends_everything(virtual: Run, client: ServiceClient, budget: Budget) -> None:
    calls = Calls(AccessDenied("EXA_API_KEY is refused"))
    with pytest.raises(AccessDenied, match="EXA_API_KEY is refused"):
        virtual(client.fetch(KEY, calls, worst_usd=PRICE))
    with pytest.raises(AccessDenied, match="EXA_API_KEY is refused"):
        virtual(client.fetch(make_key("exa", query="another"), calls, worst_usd=PRICE))
    assert calls.count == 1
    assert numbers(budget) == ServiceSpend(0.0, 0.0, calls=1)


def test_the_budget_holds_with_many_calls_in_flight(virtual: Run, client: ServiceClient) -> None:
    client.budget.max_usd = 0.5
    calls = Calls(*[0.2] * 1000)

    async def main() -> list[object]:
        fetches = (
            client.fetch(make_key("exa", query=str(n)), calls, worst_usd=PRICE) for n in range(300)
        )
        return await asyncio.gather(*fetches, return_exceptions=True)

    results = virtual(main())
    assert sum(isinstance(r, Answer) for r in results) == calls.count == 100
    assert {type(r) for r in results} == {Answer, BudgetExceeded}


def test_a_call_that_is_cancelled_may_have_cost(virtual: Run, client: ServiceClient) -> None:
    async def main() -> None:
        calls = Calls(60.0)
        task = asyncio.create_task(client.fetch(KEY, calls, worst_usd=PRICE))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual(main())
    assert numbers(client.budget) == ServiceSpend(PRICE, 0.0, calls=1)


def offline(cache: AnswerCache, budget: Budget, retry: RetryPolicy | None) -> ServiceClient:
    return ServiceClient("exa", AnswerCache(cache.folder, "offline"), budget, retry)


def test_offline_nothing_is_sent(virtual: Run, cache: AnswerCache, budget: Budget) -> None:
    calls = Calls()
    client = offline(cache, budget, RetryPolicy("exa", ServiceConfig()))
    cache.put(KEY, {"answer": 0}, ttl_seconds=1e-6)
    assert virtual(client.fetch(KEY, calls)).value == {"answer": 0}
    with pytest.raises(OfflineMiss) as caught:
        virtual(client.fetch(make_key("exa", query="Who founded Brindle Works?"), calls))
    assert str(caught.value) == (
        "exa has no stored answer to 'Who founded Brindle Works?', and cache.mode is offline: "
        "nothing is sent; import an export that holds it (rsearch cache import FILE), or run once "
        "with --set cache.mode=read-write"
    )
    with pytest.raises(OfflineMiss, match="no stored answer to 'When was it built"):
        virtual(client.fetch(make_key("judge", question="When was it built?"), calls))
    assert calls.count == 0


def test_offline_a_local_source_still_answers(
    virtual: Run, cache: AnswerCache, budget: Budget
) -> None:
    calls = Calls()
    calls.usd = 0.0
    assert not virtual(offline(cache, budget, None).fetch(KEY, calls)).cached
    assert virtual(offline(cache, budget, None).fetch(KEY, calls)).cached


def test_without_a_flow_a_failure_is_final(
    virtual: Run, cache: AnswerCache, budget: Budget
) -> None:
    client, calls = ServiceClient("local", cache, budget, None), Calls(TransientFailure("busy"))
    with pytest.raises(ServiceFailure, match=r"^busy$"):
        virtual(client.fetch(KEY, calls))


def test_a_cache_that_cannot_be_used_costs_money_only(
    virtual: Run, tmp_path: Path, budget: Budget, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    broken = AnswerCache(tmp_path / "file" / "answers")
    client, calls = (
        ServiceClient("exa", broken, budget, RetryPolicy("exa", ServiceConfig())),
        Calls(),
    )
    assert virtual(client.fetch(KEY, calls, worst_usd=PRICE)).value == {"answer": 1}
    assert virtual(client.fetch(KEY, calls, worst_usd=PRICE)).value == {"answer": 2}
    assert capsys.readouterr().err.count("continuing without it") == 1


def test_a_hit_costs_little(cache: AnswerCache, budget: Budget) -> None:
    client, calls = (
        ServiceClient("exa", cache, budget, RetryPolicy("exa", ServiceConfig())),
        Calls(),
    )
    passages = [{"id": "x" * 40, "title": "t" * 30, "text": "a b " * 125}] * 3
    for number in range(100):
        cache.put(make_key("exa", query=str(number)), passages, usd=PRICE)

    async def main() -> float:
        keys = [make_key("exa", query=str(number % 100)) for number in range(2000)]
        started = time.process_time()
        for key in keys:
            await client.fetch(key, calls, worst_usd=PRICE)
        return time.process_time() - started

    # Processor time, ten times what it takes; the benchmark measures the clock's.
    assert asyncio.run(main()) < 1.0
    assert calls.count == 0


# A process that asks for the same keys as others, and says on a shared file when it makes a call.
ASK = """
import asyncio, os, sys
from pathlib import Path
from rsearch_cli.errors import BudgetExceeded
from rsearch_cli.recipe.services import ServiceConfig
from rsearch_cli.services.cache import AnswerCache, make_key
from rsearch_cli.services.outcomes import Reply
from rsearch_cli.services.retry import RetryPolicy
from rsearch_cli.services.client import ServiceClient
from rsearch_cli.services.budget import Budget

folder, name, keys, max_usd = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
log = os.open(folder / "calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
settings = ServiceConfig(requests_per_second=10000.0)

async def ask(client, number):
    async def call():
        os.write(log, b"%d\\n" % number)
        await asyncio.sleep(0.05)
        return Reply(number, 0.005)

    key = make_key("exa", query=f"{name} {number}")
    try:
        return (await client.fetch(key, call, worst_usd=0.005)).value == number
    except BudgetExceeded:
        return None

async def main():
    with AnswerCache(folder / "answers") as cache, Budget(folder / "run", max_usd) as budget:
        client = ServiceClient("exa", cache, budget, RetryPolicy("exa", settings))
        got = await asyncio.gather(*(ask(client, number) for number in range(keys)))
    print(got.count(True), got.count(None))

sys.stdin.readline()
asyncio.run(main())
"""


def run_two(start: Callable[..., subprocess.Popen[str]], *arguments: list[object]) -> list[str]:
    processes = [start(ASK, *each) for each in arguments]
    ends = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert err == ""
        ends.append(out.strip())
    return ends


def test_two_processes_that_ask_the_same_make_one_call(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    ends = run_two(start, *[[tmp_path, "shared", 64, 100.0]] * 2)
    assert ends == ["64 0", "64 0"]
    calls = (tmp_path / "calls").read_text().split()
    assert sorted(map(int, calls)) == list(range(64))


def test_two_processes_with_many_calls_in_flight_keep_one_budget(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    ends = run_two(start, [tmp_path, "one", 150, 0.5], [tmp_path, "two", 150, 0.5])
    assert len((tmp_path / "calls").read_text().split()) == 100
    got = [int(end.split()[0]) for end in ends]
    assert sum(got) == 100
    with Budget(tmp_path / "run", 0.5) as budget:
        assert budget.snapshot().total.usd == pytest.approx(0.5)
        with pytest.raises(BudgetExceeded):
            budget.reserve("exa", 0.005)
