"""The budget is hard: by the servers' own count no call passes it, whatever goes wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scripted
from exa import API_KEY as EXA_KEY
from exa import USD_PER_SEARCH, ExaServer
from faults import CHAOS, Faults
from local_http import Answer, Received
from openai_chat import ChatServer
from scripted import make_questions, make_recipe, open_run, run_agents, write_distinct_plan

from rsearch_cli.errors import BudgetExceeded
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.spend import Spend

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

QUESTIONS = 16  # x 4 generations x 4 nodes = 256 searches, 1.79 USD
MAX_USD = 0.5
PRECISION = 1e-9


@pytest.fixture
def exa(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExaServer]:
    with ExaServer(latency=0.03, jitter=0.02, retry_after="0", stall_seconds=20.0) as server:
        monkeypatch.setenv("EXA_API_KEY", EXA_KEY)
        monkeypatch.setenv("EXA_BASE_URL", server.url)
        yield server


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(retry_after="0", stall_seconds=20.0) as server:
        yield server


def run(chat: ChatServer, folder: Path, max_usd: float, *settings: str) -> Spend:
    """One run, or what it takes up of an earlier one in the same folder."""
    recipe = make_recipe(chat.base_url, f"budget.max_usd={max_usd}", *settings)
    with open_run(recipe, folder / "cache", folder / "run") as services:
        run_agents(recipe, services, make_questions(QUESTIONS), write_distinct_plan)
        return services.budget.snapshot()


def booked(folder: Path) -> float:
    """What the run's own file says was spent, in USD."""
    return Budget(folder / "run").snapshot().total.usd


def test_the_server_never_counts_more_than_the_budget(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    line = r"\$0\.4970 of budget\.max_usd \$0\.5000 is spent or in flight; to continue, raise"
    with pytest.raises(BudgetExceeded, match=line):
        run(chat, tmp_path, MAX_USD)
    assert MAX_USD - USD_PER_SEARCH < exa.usd <= MAX_USD, "and all of it can be spent"
    assert booked(tmp_path) == pytest.approx(exa.usd)
    # 18 calls in flight at four times their price would be 0.504 USD.
    assert 12 <= exa.most_at_once <= 17


PRICES = {
    "as the recipe says": USD_PER_SEARCH,
    "below": 0.002,
    "a little above": 0.0075,
    "twice": 0.014,
    "tenfold": 0.07,
    "rising with every search": lambda search: 0.003 + 0.0002 * search,
    "doubled in the middle": lambda search: 0.007 if search < 20 else 0.014,
    "quadrupled in the middle": lambda search: 0.005 if search < 30 else 0.02,
    "another one each time": lambda search: (0.001, 0.02, 0.007)[search % 3],
    "one that costs more": lambda search: 0.05 if search == 17 else 0.005,
}


CASES = [(name, USD_PER_SEARCH) for name in PRICES] + [
    ("as the recipe says", 0.0),
    ("tenfold", 0.0),
]


@pytest.mark.parametrize(("price", "expected"), CASES)
def test_the_budget_holds_at_the_price_that_is_charged(
    exa: ExaServer, chat: ChatServer, tmp_path: Path, price: str, expected: float
) -> None:
    exa.price = PRICES[price]
    # All searches of the cheapest case would cost 0.512 USD.
    budget = 0.3 if price == "below" else MAX_USD
    for _ in range(2):  # the second run goes on in the folder of the first
        with pytest.raises(BudgetExceeded):
            run(chat, tmp_path, budget, f"search.usd_per_search={expected}")
        assert budget / 3 < exa.usd <= budget + PRECISION
        assert booked(tmp_path) == pytest.approx(exa.usd)


def test_with_money_enough_32_searches_are_in_flight(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    exa.price = 0.01
    spend = run(chat, tmp_path, 10.0)
    assert 28 <= exa.most_at_once <= 32
    assert spend.services["exa"].usd == pytest.approx(exa.usd) == pytest.approx(2.56)


def test_a_price_above_the_recipes_is_told_once_and_kept_for_the_next_run(
    exa: ExaServer, chat: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exa.price = 0.02
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, 0.1)
    said = capsys.readouterr().err
    assert said == (
        "warning: exa charged $0.0200 for a call that should cost at most $0.0070; the budget "
        "counts with that from now on\n"
    )
    sent = len(exa.requests)
    # 0.03 are left and would do at the recipe's price.
    with pytest.raises(BudgetExceeded, match=r"the next call could cost \$0\.0330"):
        run(chat, tmp_path, 0.11)
    assert len(exa.requests) == sent


class OddlyPriced(ExaServer):
    """Exa, but each answer states something else than a price; the bill counts the usual one."""

    stated: Any = None

    def respond(self, request: Received) -> Answer:
        status, answer = super().respond(request)
        return status, answer | {"costDollars": {"total": self.stated}}


ODD_CHARGES = (-1.0, float("nan"), float("inf"), 1e9, 10**400, True, "0.007", [0.007], None)


@pytest.mark.parametrize("stated", ODD_CHARGES, ids=lambda value: repr(value)[:20])
def test_a_charge_that_is_none_is_not_taken(
    chat: ChatServer,
    tmp_path: Path,
    stated: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with OddlyPriced(retry_after="0") as exa:
        exa.stated = stated
        monkeypatch.setenv("EXA_API_KEY", EXA_KEY)
        monkeypatch.setenv("EXA_BASE_URL", exa.url)
        with pytest.raises(BudgetExceeded):
            run(chat, tmp_path, MAX_USD)
    assert MAX_USD - USD_PER_SEARCH < exa.usd <= MAX_USD + PRECISION
    assert booked(tmp_path) == pytest.approx(exa.usd)
    assert ("is not credible; the budget counts $0.0070" in capsys.readouterr().err) == (
        stated is not None
    )


def test_calls_that_fail_are_paid_from_the_same_budget(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    exa.faults = Faults(CHAOS, share=0.3)
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, MAX_USD, "search.service.timeout_seconds=0.5",
            "search.service.max_backoff_seconds=0.01")  # fmt: skip
    # Halves of answers and pages of HTML are on the bill too.
    assert MAX_USD / 2 < exa.usd <= MAX_USD + PRECISION
    assert exa.usd <= booked(tmp_path) + PRECISION <= MAX_USD + 2 * PRECISION


def test_a_resumed_run_goes_on_from_where_it_stopped(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, MAX_USD)
    sent = len(exa.requests)
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, MAX_USD)
    assert len(exa.requests) == sent, "the same budget buys nothing more"
    spend = run(chat, tmp_path, 2.0)
    assert len(exa.requests) == QUESTIONS * 16, "and nothing is bought twice"
    assert spend.services["exa"].usd == pytest.approx(exa.usd) == pytest.approx(1.792)
    assert spend.services["exa"].calls == QUESTIONS * 16
    assert spend.total.usd == pytest.approx(exa.usd + chat.usd)


def test_searches_and_verdicts_share_the_budget(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    # The searches leave room for some of the 48 verdicts, but not for all.
    searches = QUESTIONS * 16 * USD_PER_SEARCH
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, searches + 0.002)
    assert exa.usd == pytest.approx(searches)
    assert 0 < len(chat.requests) < QUESTIONS * 3
    assert exa.usd + chat.usd <= searches + 0.002 + PRECISION


def test_a_budget_of_nothing_sends_nothing(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, 0.0)
    assert exa.requests == chat.requests == []


KILLED = ("as the recipe says", "twice", "rising with every search", "another one each time")


@pytest.mark.parametrize("price", KILLED)
def test_a_killed_run_forgets_nothing_it_may_have_spent(
    exa: ExaServer, chat: ChatServer, tmp_path: Path, price: str
) -> None:
    exa.price = PRICES[price]
    command = [
        *(sys.executable, scripted.__file__, "--judge", chat.base_url, "--distinct"),
        *("--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")),
        *("--questions", str(QUESTIONS), "--set", f"budget.max_usd={MAX_USD}"),
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.stdin.write("go\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while len(exa.requests) < 15 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert 15 <= len(exa.requests) < 40, "it must have been killed in the middle"
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            run(chat, tmp_path, MAX_USD)
        # What was lost by the kill counts as much as it may have cost, so less can be bought.
        assert MAX_USD / 4 < exa.usd <= MAX_USD + PRECISION
    assert exa.usd <= booked(tmp_path) + PRECISION
