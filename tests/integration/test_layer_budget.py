"""The budget is hard: by the servers' own count no call passes it, whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import scripted
from exa import API_KEY as EXA_KEY
from exa import USD_PER_SEARCH, ExaServer
from faults import CHAOS, Faults
from openai_chat import ChatServer
from scripted import make_questions, make_recipe, open_run, run_agents, write_distinct_plan

from rsearch_cli.errors import BudgetExceeded
from rsearch_cli.services.purse import SPEND, Spend

QUESTIONS = 16  # x 4 generations x 4 nodes = 256 searches, 1.28 USD
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
        return services.purse.snapshot()


def booked(folder: Path) -> float:
    """What the run's own file says was spent, in USD."""
    services = json.loads((folder / "run" / SPEND).read_text())["services"]
    return sum(service["usd"] for service in services.values())


def test_the_server_never_counts_more_than_the_budget(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    line = r"\$0\.5000 of budget\.max_usd \$0\.5000 is spent or in flight; to go on, raise"
    with pytest.raises(BudgetExceeded, match=line):
        run(chat, tmp_path, MAX_USD)
    assert exa.usd == pytest.approx(MAX_USD), "and all of it can be spent"
    assert booked(tmp_path) == pytest.approx(exa.usd)
    assert 16 <= exa.most_at_once <= 32


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
    assert spend.services["exa"].usd == pytest.approx(exa.usd) == pytest.approx(1.28)
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


def test_a_killed_run_forgets_nothing_it_may_have_spent(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    command = [
        *(sys.executable, scripted.__file__, "--judge", chat.base_url, "--distinct"),
        *("--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")),
        *("--questions", str(QUESTIONS), "--set", f"budget.max_usd={MAX_USD}"),
    ]
    repository = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": repository},
    ) as process:
        process.stdout.readline()
        process.stdin.write("go\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while len(exa.requests) < 40 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert 40 <= len(exa.requests) < 100, "it must have been killed in the middle"
    assert exa.usd <= booked(tmp_path) + PRECISION
    with pytest.raises(BudgetExceeded):
        run(chat, tmp_path, MAX_USD)
    assert MAX_USD / 2 < exa.usd <= MAX_USD + PRECISION
