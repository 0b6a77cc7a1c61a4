"""What holds for every kind of source that asks a service, against its local server."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import CHAOS, Fault, Faults
from local_http import LocalServer
from search_services import NOT_RESULTS, SERVICES, SearchService

from rsearch_cli.errors import AccessDenied, BudgetExceeded
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import SearchRequest, SearchSource, open_sources
from rsearch_cli.services.budget import Budget
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.outcomes import TransientFailure
from rsearch_cli.services.runtime import open_services
from rsearch_cli.services.spend import ServiceSpend
from rsearch_cli.types import NodeResult, PlanNode, SearchPlan

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

PAID = [service for service in SERVICES if service.usd]
KEYED = [service for service in SERVICES if service.key]
DENIALS = (Fault.UNAUTHORIZED, Fault.NO_CREDITS, Fault.FORBIDDEN)


@pytest.fixture(params=SERVICES, ids=lambda service: service.kind)
def service(request: pytest.FixtureRequest) -> SearchService:
    chosen: SearchService = request.param
    return chosen


@pytest.fixture
def server(service: SearchService, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    with service.server(retry_after="0", stall_seconds=0.1) as server:
        for name, value in service.environment(server).items():
            monkeypatch.setenv(name, value)
        yield server


class Run:
    """Runs of one recipe with one source, in one run folder and one cache."""

    def __init__(self, service: SearchService, server: LocalServer, folder: Path) -> None:
        self.service, self.server, self.folder = service, server, folder

    def recipe(self, *settings: str) -> Recipe:
        source = {"type": self.service.kind, "options": dict(self.service.options(self.server))}
        overrides = [
            'protocol.sources={General: "the web"}',
            f"search.sources={{General: {source}}}",
            "search.top_k=2",
            "search.service.requests_per_second=10000",
            "search.service.max_backoff_seconds=0",
            "search.service.retries=2",
            *settings,
        ]
        return load_recipe("quickstart", overrides).recipe

    def execute(self, plan: SearchPlan, *settings: str) -> tuple[NodeResult, ...]:
        recipe = self.recipe(*settings)
        with (
            open_services(recipe, self.folder / "run", self.folder / "cache") as services,
            PlanExecutor(open_sources(recipe.search, list), recipe.search, services) as executor,
        ):
            return executor.execute([plan])[0]

    def spend(self) -> ServiceSpend:
        """What the run folder says about the service."""
        services = Budget(self.folder / "run").snapshot().services
        return services.get(self.service.kind, ServiceSpend())

    @property
    def billed(self) -> float:
        return getattr(self.server, "usd", 0.0)

    @property
    def asked(self) -> list[str]:
        return [self.service.asked(request) for request in self.server.requests]


@pytest.fixture
def run(service: SearchService, server: LocalServer, tmp_path: Path) -> Run:
    return Run(service, server, tmp_path)


def plan(*queries: str, edges: tuple[tuple[str, str], ...] = ()) -> SearchPlan:
    labels = "ABCDEFGH"[: len(queries)]
    nodes = zip(labels, queries, strict=True)
    return SearchPlan(tuple(PlanNode(*node, "General") for node in nodes), edges)


def test_results_become_passages_and_are_stored(run: Run) -> None:
    first, second = run.execute(plan("lamp makers", "glass makers"))
    for result in (first, second):
        assert result.error is None and not result.cached
        assert len(result.passages) == 2
        assert all(passage.id and passage.title and passage.text for passage in result.passages)
    assert sorted(run.asked) == ["glass makers", "lamp makers"]
    again = run.execute(plan("lamp makers", "glass makers"))
    assert [result.cached for result in again] == [True, True]
    assert [result.passages for result in again] == [first.passages, second.passages]
    assert len(run.asked) == 2
    assert run.spend().usd == pytest.approx(run.billed) == pytest.approx(2 * run.service.usd)


JOINING = [service for service in SERVICES if service.joins_names]


@pytest.mark.parametrize("service", JOINING, ids=lambda service: service.kind, indirect=True)
def test_the_names_of_a_parent_are_part_of_the_query(run: Run) -> None:
    settings = "search.expand_dependents=titles"
    _, child = run.execute(plan("lamps", "who made", edges=(("A", "B"),)), settings)
    assert child.expansion
    assert run.asked == ["lamps", " ".join(["who made", *child.expansion])]


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_is_retried_or_refused_or_stops_the_run(run: Run, fault: Fault) -> None:
    run.server.faults = Faults([fault], first=1)
    attempts = 1
    if fault in DENIALS and run.service.denied:
        with pytest.raises(AccessDenied) as caught:
            run.execute(plan("lamps"))
        assert run.service.key_variable in str(caught.value)
        assert f"fault {fault}" in str(caught.value)
    else:
        [result] = run.execute(plan("lamps"))
        if fault in CHAOS or fault is Fault.OVERLOADED:
            assert result.error is None and result.passages
            attempts = 2
        else:
            assert result.error is not None and f"answered {fault} (" in result.error
            assert run.spend().failed == 1
    assert len(run.asked) == run.spend().calls == attempts
    # What was lost on its way is on the bill, and what may have been is counted.
    assert run.billed - 1e-9 <= run.spend().usd <= attempts * run.service.usd + 1e-9
    if fault.status is not None and fault.status < 500:
        assert run.spend().usd == pytest.approx(run.billed), "a refused request costs nothing"


def test_a_search_that_is_cut_off_is_counted_and_not_stored(run: Run) -> None:
    run.server.faults = Faults([Fault.STALL], first=1)
    [failed] = run.execute(plan("lamps"), "search.service.retries=0")
    assert failed.error is not None and "no answer" in failed.error and not failed.passages
    [found] = run.execute(plan("lamps"))
    assert found.passages and not found.cached
    assert run.spend().usd == pytest.approx(2 * run.service.usd), "the first may be on the bill"


def test_the_service_says_how_long_to_wait(
    service: SearchService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with service.server(retry_after="7", faults=Faults([Fault.RATE_LIMIT])) as server:
        for name, value in service.environment(server).items():
            monkeypatch.setenv(name, value)
        [source] = open_sources(Run(service, server, tmp_path).recipe().search, list).values()
        with pytest.raises(TransientFailure) as caught:
            asyncio.run(source.search(SearchRequest("lamps")))
    assert (caught.value.retry_after, caught.value.free) == (7.0, True)


def test_an_answer_that_is_none_fails_the_call_and_is_not_stored(run: Run) -> None:
    respond = run.server.respond

    async def search_all(source: SearchSource) -> None:
        for body in (*NOT_RESULTS, *run.service.malformed):
            run.server.respond = lambda request: (200, body)  # noqa: B023
            with pytest.raises(TransientFailure, match="sent no search results") as caught:
                await source.search(SearchRequest("lamps", top_k=2))
            assert not caught.value.free, body
        await source.close()

    [source] = open_sources(run.recipe().search, list).values()
    asyncio.run(search_all(source))
    [failed] = run.execute(plan("lamps"), "search.service.retries=0")
    assert failed.error is not None and "sent no search results" in failed.error
    run.server.respond = respond
    [found] = run.execute(plan("lamps"))
    assert found.passages and not found.cached


def test_equal_requests_at_the_same_time_are_sent_once(
    service: SearchService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with service.server(latency=0.05) as server:
        for name, value in service.environment(server).items():
            monkeypatch.setenv(name, value)
        run = Run(service, server, tmp_path)
        results = run.execute(plan("lamps", "lamps", " lamps ", "glass"))
    assert sorted(run.asked) == ["glass", "lamps"]
    assert [result.cached for result in results].count(False) == 2
    assert results[0].passages == results[1].passages == results[2].passages
    assert run.spend().usd == pytest.approx(run.billed) == pytest.approx(2 * service.usd)


def test_after_a_kill_nothing_that_was_stored_is_sent_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folders as a kill leaves them between the second answer and its storage."""
    put, left = AnswerCache.put, Run(run.service, run.server, tmp_path / "left")
    stored: list[str] = []

    def put_or_die(self: AnswerCache, key: str, *args: Any, **options: Any) -> Any:
        stored.append(key)
        if len(stored) == 2:
            shutil.copytree(run.folder / "cache", left.folder / "cache")
            if run.service.usd:  # nothing is written about calls that are free
                shutil.copytree(run.folder / "run", left.folder / "run")
        return put(self, key, *args, **options)

    monkeypatch.setattr(AnswerCache, "put", put_or_die)
    chain = plan("lamps", "glass", edges=(("A", "B"),))
    plain = "search.expand_dependents=none"
    run.execute(chain, plain)
    assert left.spend().usd == pytest.approx(run.billed), "the lost answer is counted"
    first, second = left.execute(chain, plain)
    assert (first.cached, second.cached) == (True, False)
    assert run.asked == ["lamps", "glass", "glass"], "only what was lost is sent again"
    assert left.spend().usd == pytest.approx(run.billed) == pytest.approx(3 * run.service.usd)
    assert all(result.cached for result in left.execute(chain, plain))
    assert len(run.asked) == 3


@pytest.mark.parametrize("service", PAID, ids=lambda service: service.kind, indirect=True)
def test_the_budget_bounds_the_bill_with_calls_in_flight(run: Run) -> None:
    limit = 5.5 * run.service.usd
    with pytest.raises(BudgetExceeded, match=r"budget\.max_usd"):
        run.execute(plan(*(f"lamp {i}" for i in range(8))), f"budget.max_usd={limit}")
    assert len(run.asked) == 5
    assert run.spend().usd == pytest.approx(run.billed) == pytest.approx(5 * run.service.usd)


@pytest.mark.parametrize("service", PAID, ids=lambda service: service.kind, indirect=True)
def test_the_recipe_sets_the_price_of_one_source(run: Run) -> None:
    priced = "search.sources.General.usd_per_search=0.5"
    with pytest.raises(BudgetExceeded, match=r"could cost \$0\.5000"):
        run.execute(plan("lamps"), priced, "budget.max_usd=0.4")
    assert run.asked == []


@pytest.mark.parametrize("service", KEYED, ids=lambda service: service.kind, indirect=True)
def test_the_key_goes_to_the_service_and_nowhere_else(
    run: Run, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    run.execute(plan("lamps"))
    assert any(run.service.key in value for value in run.server.requests[0].headers.values())
    said = []
    for status in (400, 403, 500):
        words = {"error": f"not with {run.service.key}", "message": f"not with {run.service.key}"}
        run.server.respond = lambda request, answer=(status, words): answer
        try:
            said.append(
                str(run.execute(plan(f"lamp {status}"), "search.service.retries=0")[0].error)
            )
        except AccessDenied as denied:
            said.append(str(denied))
    assert all("not with ***" in line for line in said)
    written = [path for path in run.folder.rglob("*") if path.is_file()]
    assert any("cache" in path.parts for path in written)
    assert [path for path in written if run.service.key.encode() in path.read_bytes()] == []
    output = capfd.readouterr()
    assert run.service.key not in caplog.text + output.out + output.err + "".join(said)


@pytest.mark.parametrize("service", KEYED, ids=lambda service: service.kind, indirect=True)
def test_a_key_is_checked_before_anything_is_sent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = run.service.key_variable
    monkeypatch.setenv(variable, "a key of several words")
    with pytest.raises(AccessDenied, match=f"{variable} holds a space"):
        run.execute(plan("lamps"))
    monkeypatch.delenv(variable)
    if run.service.denied:
        with pytest.raises(AccessDenied, match=f"needs a key and {variable} is not set; get one"):
            run.execute(plan("lamps"))
    assert run.asked == []
