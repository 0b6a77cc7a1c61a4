"""Nothing is bought twice: not within a group, not by two threads, not by two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import scripted
from exa import API_KEY as EXA_KEY
from exa import USD_PER_SEARCH, ExaServer
from local_http import LocalServer
from openai_chat import ChatServer
from scripted import (
    GENERATIONS,
    NODES,
    make_questions,
    make_recipe,
    open_run,
    run_agents,
    searches,
    verdicts,
)

from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.types import PlanNode, SearchPlan

QUESTIONS = 12
TRAJECTORIES = QUESTIONS * GENERATIONS


@pytest.fixture
def exa(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExaServer]:
    # Slow enough that equal requests do meet while they are under way.
    with ExaServer(latency=0.05, jitter=0.03) as server:
        monkeypatch.setenv("EXA_API_KEY", EXA_KEY)
        monkeypatch.setenv("EXA_BASE_URL", server.url)
        yield server


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(latency=0.05, jitter=0.03) as server:
        yield server


def sent_twice(server: LocalServer) -> list[str]:
    """Bodies that came more than once."""
    bodies = Counter(json.dumps(request.body, sort_keys=True) for request in server.requests)
    return [body for body, count in bodies.items() if count > 1]


def test_paid_calls_fall_by_the_share_of_duplicates_exactly(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    recipe = make_recipe(chat.base_url)
    with open_run(recipe, tmp_path / "cache", tmp_path / "run") as services:
        scored = run_agents(recipe, services, make_questions(QUESTIONS))
        spend = services.budget.snapshot().services
    asked = searches(scored)
    assert len(asked) == TRAJECTORIES * NODES
    distinct = len(set(asked))
    # Of the 16 nodes of a question's 4 plans: one A, two Bs, four Cs, two Ds.
    assert distinct == QUESTIONS * 9
    assert len(exa.requests) == distinct
    assert spend["exa"].calls == distinct
    assert spend["exa"].hits == len(asked) - distinct
    assert spend["exa"].usd == pytest.approx(distinct * USD_PER_SEARCH)
    assert spend["exa"].saved_usd == pytest.approx((len(asked) - distinct) * USD_PER_SEARCH)
    assert len(chat.requests) == spend["judge"].calls == QUESTIONS * 3
    assert spend["judge"].hits == len(verdicts(scored)) - QUESTIONS * 3
    assert sent_twice(exa) == sent_twice(chat) == []


def test_a_node_says_whether_it_was_paid_for(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    recipe = make_recipe(chat.base_url)
    with open_run(recipe, tmp_path / "cache", None) as services:
        scored = run_agents(recipe, services, make_questions(3))
    results = [r for t, _ in scored for round_ in t.rounds for r in round_.results]
    assert sum(not result.cached for result in results) == len(exa.requests) == 3 * 9


def test_words_that_parents_found_and_words_that_were_written_are_one_request(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    recipe = make_recipe(chat.base_url, "search.top_k=1")
    parent, child = PlanNode("A", "lamps", "General"), PlanNode("B", "who made", "General")
    found = SearchPlan((parent, child), (("A", "B"),))
    with (
        open_run(recipe, tmp_path / "cache", None) as services,
        PlanExecutor(open_sources(recipe.search, list), recipe.search, services) as executor,
    ):
        expansion = executor.execute([found])[0][1].expansion
        assert expansion
        written = PlanNode("A", " ".join(["who made", *expansion]), "General")
        result = executor.execute([SearchPlan((written,))])[0][0]
    assert result.cached
    assert [request.body["query"] for request in exa.requests] == ["lamps", written.query]


def test_a_second_run_sends_nothing(exa: ExaServer, chat: ChatServer, tmp_path: Path) -> None:
    recipe = make_recipe(chat.base_url)
    runs = []
    for name in ("first", "second"):
        with open_run(recipe, tmp_path / "cache", tmp_path / name) as services:
            runs.append(run_agents(recipe, services, make_questions(QUESTIONS)))
            spend = services.budget.snapshot().total
    assert len(exa.requests) == QUESTIONS * 9
    assert (spend.calls, spend.usd) == (0, 0.0)
    assert spend.saved_usd > 0
    answers = [[parts.answer for _, parts in scored] for scored in runs]
    assert answers[0] == answers[1]


def test_an_offline_run_repeats_a_paid_one(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    texts = []
    for mode in ("read-write", "offline"):
        recipe = make_recipe(chat.base_url, f"cache.mode={mode}")
        with open_run(recipe, tmp_path / "cache", None) as services:
            scored = run_agents(recipe, services, make_questions(3))
            texts.append([(t.transcript, parts.total) for t, parts in scored])
        exa.stop()
        chat.stop()
    assert texts[0] == texts[1]


def test_two_processes_with_two_threads_each_send_every_request_once(
    exa: ExaServer, chat: ChatServer, tmp_path: Path
) -> None:
    command = [
        *(sys.executable, scripted.__file__, "--judge", chat.base_url),
        *("--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")),
        *("--questions", str(QUESTIONS), "--threads", "2"),
    ]
    processes = [start(command) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate(timeout=100)[0]) for process in processes]
    right = [1.0, 1.0, 0.0, 0.0] * QUESTIONS
    assert [scores for process in told for scores in process["scores"]] == [right] * 4
    assert sent_twice(exa) == sent_twice(chat) == []
    assert len(exa.requests) == QUESTIONS * 9
    assert len(chat.requests) == QUESTIONS * 3
    # They share a run folder, so whoever ends last has seen the whole bill.
    assert max(process["calls"] for process in told) == QUESTIONS * 12


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
