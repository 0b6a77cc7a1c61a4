"""A third of all calls goes wrong in every way there is, and no number that comes out is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from exa import API_KEY as EXA_KEY
from exa import ExaServer
from faults import CHAOS, Fault, Faults
from openai_chat import ChatServer
from scripted import (
    GENERATIONS,
    NODES,
    Scored,
    expected_score,
    make_questions,
    make_recipe,
    open_run,
    run_agents,
    searches,
    write_distinct_plan,
)

from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.spend import Spend

QUESTIONS = 50
TRAJECTORIES = QUESTIONS * GENERATIONS

# Two retries leave about one call in forty without an answer: enough to see what becomes of those.
IMPATIENT = tuple(
    f"{service}.{setting}"
    for service in ("search.service", "reward.judge.service")
    for setting in (
        "timeout_seconds=1.0",
        "retries=2",
        "max_backoff_seconds=0.01",
        "breaker_failures=1000",
    )
)


class Chaos:
    """One run through servers that fail, and what they counted."""

    def __init__(self, folder: Path, exa: ExaServer, chat: ChatServer) -> None:
        self.folder, self.exa, self.chat = folder, exa, chat
        self.scored, self.spend = self.run(*IMPATIENT)
        self.counts = {"exa": exa.counts(), "chat": chat.counts()}

    def run(self, *settings: str) -> tuple[Scored, Spend]:
        recipe = make_recipe(self.chat.base_url, *settings)
        with open_run(recipe, self.folder / "cache", self.folder / "run") as services:
            questions = make_questions(QUESTIONS)
            scored = run_agents(recipe, services, questions, write_distinct_plan)
            return scored, services.budget.snapshot()


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    def faults() -> Faults:
        return Faults(CHAOS, share=0.3)

    settings = {"retry_after": "0", "stall_seconds": 20.0}
    with (
        pytest.MonkeyPatch.context() as patch,
        ExaServer(faults=faults(), **settings) as exa,
        ChatServer(faults=faults(), **settings) as chat,
    ):
        patch.setenv("EXA_API_KEY", EXA_KEY)
        patch.setenv("EXA_BASE_URL", exa.url)
        patch.setenv("OPENAI_API_KEY", "openai-key-for-tests-only")
        yield Chaos(tmp_path_factory.mktemp("chaos"), exa, chat)


def test_every_kind_of_failure_came_and_hit_three_calls_in_ten(chaos: Chaos) -> None:
    for counts in chaos.counts.values():
        assert counts["failed"].keys() == {str(fault) for fault in CHAOS}
        share = sum(counts["failed"].values()) / counts["requests"]
        assert share == pytest.approx(0.3, abs=0.01)
        assert counts["failed"][str(Fault.STALL)] > 3


def test_every_trajectory_is_scored_right_or_flagged(chaos: Chaos) -> None:
    assert len(chaos.scored) == TRAJECTORIES
    unscored = 0
    for row, (_, parts) in enumerate(chaos.scored):
        if parts.total is None:
            unscored += 1
            assert parts.answer is None
        else:
            assert parts.answer == expected_score(row % GENERATIONS)
    assert 0 < unscored < TRAJECTORIES / 10, "some verdicts must have failed, and few"


def test_every_search_found_the_right_pages_or_says_that_it_failed(chaos: Chaos) -> None:
    flagged = 0
    for trajectory, _ in chaos.scored:
        results = trajectory.rounds[0].results
        assert len(results) == NODES
        block = trajectory.segments[1].text
        failed = [result for result in results if result.error is not None]
        assert trajectory.failed_searches == len(failed)
        flagged += bool(failed)
        assert ("search failed" in block) == bool(failed)
        for result in results:
            if result.error is None:
                asked = " ".join([result.node.query, *result.expansion])
                titles = [passage.title for passage in result.passages]
                assert titles == [
                    f"{asked.title()}, part {rank + 1}" for rank in range(len(titles))
                ]
                assert titles
            else:
                assert not result.passages
                assert "tried 3 times" in result.error
    assert 0 < flagged < TRAJECTORIES / 2, "some searches must have failed, and not most"


def test_failures_are_counted_by_service(chaos: Chaos) -> None:
    services = chaos.spend.services
    assert services["exa"].failed == sum(t.failed_searches for t, _ in chaos.scored)
    assert services["judge"].failed == sum(parts.answer is None for _, parts in chaos.scored)


def test_what_was_booked_covers_what_the_servers_billed(chaos: Chaos) -> None:
    assert chaos.spend.services["exa"].usd >= chaos.exa.usd - 1e-9
    assert chaos.spend.services["judge"].usd >= chaos.chat.usd - 1e-9
    # On a busy machine a call may be out of time before it has reached the server.
    assert chaos.spend.services["exa"].calls >= chaos.counts["exa"]["requests"]
    assert chaos.spend.services["judge"].calls >= chaos.counts["chat"]["requests"]


def test_no_failure_is_stored_and_the_next_run_asks_for_just_what_is_missing(chaos: Chaos) -> None:
    failed = {
        key
        for key, error in zip(searches(chaos.scored), errors(chaos.scored), strict=True)
        if error is not None
    }
    asked = set(searches(chaos.scored))
    with AnswerCache(chaos.folder / "cache") as cache:
        stored = list(cache.export_rows())
    kinds = [json.loads(str(row["key"]))["service"] for row in stored]
    assert kinds.count("exa") == len(asked) - len(failed)
    for row, kind in zip(stored, kinds, strict=True):
        if kind == "exa":
            assert all(passage["title"] for passage in row["value"]) and row["value"]
        else:
            assert json.loads(str(row["value"])).keys() == {"score"}
    chaos.exa.faults = chaos.chat.faults = Faults()
    before = len(chaos.exa.requests), len(chaos.chat.requests)
    again, _ = chaos.run()
    assert all(trajectory.failed_searches == 0 for trajectory, _ in again)
    for row, (_, parts) in enumerate(again):
        assert parts.answer == expected_score(row % GENERATIONS)
    # A child whose parent failed was asked without its parent's titles, and is asked anew.
    missing = set(searches(again)) - (asked - failed)
    assert len(chaos.exa.requests) - before[0] == len(missing)
    unscored = sum(parts.answer is None for _, parts in chaos.scored)
    assert len(chaos.chat.requests) - before[1] == unscored


def errors(scored: Scored) -> list[str | None]:
    return [r.error for t, _ in scored for round_ in t.rounds for r in round_.results]
