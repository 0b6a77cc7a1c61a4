from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import AccessDenied, BudgetExceeded, OfflineMiss, SourceError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import SearchRequest, SearchSource, open_sources
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.outcomes import PermanentFailure, TransientFailure
from rsearch_cli.services.retry import CallLimits
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import Passage, PlanNode, SearchPlan

pytestmark = pytest.mark.usefixtures("messages_on_stderr")

Opener = Callable[..., PlanExecutor]

FAST = (
    "search.service.requests_per_second=10000.0",
    "search.service.max_backoff_seconds=0.0",
    "search.top_k=3",
)

# A guard against hanging, never waited for: what should not happen would wait forever.
PATIENCE = 10.0


def plan(*nodes: str, edges: str = "", source: str = "General") -> SearchPlan:
    """A plan of queries labelled A, B, ...; `edges` as in "AB BC"."""
    labels = "ABCDEFGH"
    return SearchPlan(
        tuple(PlanNode(labels[i], query, source) for i, query in enumerate(nodes)),
        tuple((edge[0], edge[1]) for edge in edges.split()),
    )


class Recorder(SearchSource):
    """A source that notes what happens, answers with the query, and fails on «fail»."""

    fingerprint = "recorder/1"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.requests: list[SearchRequest] = []
        self.loops: set[int] = set()
        self.under_way = 0
        self.most_under_way = 0

    async def search(self, request: SearchRequest) -> list[Passage]:
        self.requests.append(request)
        self.events.append(f"start {request.query}")
        self.loops.add(id(asyncio.get_running_loop()))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.work(request)
        finally:
            self.under_way -= 1
        self.events.append(f"end {request.query}")
        if "fail" in request.query:
            raise SourceError(f"no answer to {request.query!r}\n  after 3 tries")
        return [Passage(request.query, f"Title {request.query.upper()}", "Named Thing")]

    async def work(self, request: SearchRequest) -> None:
        await asyncio.sleep(0)


class Meeting(Recorder):
    """A source whose searches end only once `size` of them are under way together."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.all_there = asyncio.Event()

    async def work(self, request: SearchRequest) -> None:
        if self.under_way == self.size:
            self.all_there.set()
        await asyncio.wait_for(self.all_there.wait(), PATIENCE)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def executor(opened: ExitStack) -> Opener:
    """Open an executor over one source, with services of its own over the test's cache."""

    def open_executor(source: SearchSource, *overrides: str) -> PlanExecutor:
        recipe = load_recipe("quickstart", [*FAST, *overrides]).recipe
        services = opened.enter_context(open_services(recipe, None))
        sources = dict.fromkeys(recipe.search.sources, source)
        return opened.enter_context(PlanExecutor(sources, recipe.search, services))

    return open_executor


def test_results_come_in_plan_order(executor: Opener) -> None:
    plans = [plan("c1", "root", edges="BA"), plan("x"), plan("y", "z")]
    with executor(Recorder()) as runner:
        results = runner.execute(plans)
    assert [[r.node for r in nodes] for nodes in results] == [list(p.nodes) for p in plans]
    assert [[r.passages[0].id for r in nodes] for nodes in results] == [
        ["c1", "root"], ["x"], ["y", "z"],
    ]  # fmt: skip


def test_nodes_of_a_wave_overlap_across_the_batch(executor: Opener) -> None:
    source = Meeting(3)
    with executor(source) as runner:
        runner.execute([plan("a", "b"), plan("c")])
    assert [event.split()[0] for event in source.events] == ["start"] * 3 + ["end"] * 3


def test_a_child_starts_after_all_its_parents(executor: Opener) -> None:
    source = Recorder()
    with executor(source) as runner:
        runner.execute([plan("a", "b", "c", edges="AC BC")])
    assert source.events.index("start c") > source.events.index("end a")
    assert source.events.index("start c") > source.events.index("end b")


def test_a_child_does_not_wait_for_strangers(executor: Opener) -> None:
    class Slow(Recorder):
        """«slow» ends only once the child of «quick» has started."""

        def __init__(self) -> None:
            super().__init__()
            self.child_started = asyncio.Event()

        async def work(self, request: SearchRequest) -> None:
            if request.query == "child":
                self.child_started.set()
            if request.query == "slow":
                await asyncio.wait_for(self.child_started.wait(), PATIENCE)

    source = Slow()
    with executor(source) as runner:
        runner.execute([plan("quick", "slow", "child", edges="AC")])
    assert source.events.index("start child") < source.events.index("end slow")


def test_concurrency_is_bounded_over_the_batch(executor: Opener) -> None:
    source = Meeting(3)
    source.service = "recorder"
    with executor(source, "search.service.concurrency=3") as runner:
        runner.execute([plan("a", "b"), plan("c", "d"), plan("e", "f")])
    assert source.most_under_way == 3
    assert len(source.requests) == 6


def test_one_event_loop_serves_all_batches(executor: Opener) -> None:
    source = Recorder()
    with executor(source) as runner:
        runner.execute([plan("a")])
        runner.execute([plan("b")])
    assert len(source.loops) == 1


class Titled(Recorder):
    """A source that knows the titles of its passages."""

    def simplify(self, request: SearchRequest) -> SearchRequest:
        return request


@pytest.mark.parametrize(
    ("mode", "source", "matched"),
    [("entities", Titled(), False), ("linked", Titled(), True), ("linked", Recorder(), False)],
)
def test_requests_carry_settings_and_expansion(
    executor: Opener, mode: str, source: Recorder, matched: bool
) -> None:
    settings = ("search.top_k=7", "search.own_words_weight=2", f"search.expand_dependents={mode}")
    with executor(source, *settings) as runner:
        ((parent, child),) = runner.execute([plan("a", "b", edges="AB")])
    mentions = ("Title A\nNamed Thing",) if matched else ()
    assert source.requests == [
        SearchRequest("a", (), 7, 2, matched),
        SearchRequest("b", ("Title A", "Named Thing"), 7, 2, matched, mentions),
    ]
    assert parent.expansion == ()
    assert child.expansion == ("Title A", "Named Thing")


def test_a_failed_search_marks_its_node_alone(executor: Opener) -> None:
    source = Recorder()
    with executor(source) as runner:
        failed, child, other = runner.execute([plan("fail", "b", "c", edges="AB")])[0]
        assert failed.error == "no answer to 'fail' after 3 tries"
        assert failed.passages == ()
        assert (child.error, child.expansion) == (None, ())
        assert other.error is None
        ((again,),) = runner.execute([plan("fail")])
        assert again.error == failed.error
    assert [r.query for r in source.requests].count("fail") == 2, "the error was stored"


class Outside(Recorder):
    """A paid service: it raises what is given, each for as many requests as it stands there."""

    service = "recorder"

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.failures = list(failures)

    async def work(self, request: SearchRequest) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)


def test_a_source_gets_retries_for_nothing(executor: Opener) -> None:
    source = Outside(TransientFailure("busy"), TransientFailure("busy"))
    ((result,),) = executor(source).execute([plan("a")])
    assert (result.error, result.passages[0].id) == (None, "a")
    assert len(source.requests) == 3


def test_a_service_that_does_not_answer_marks_the_node(executor: Opener) -> None:
    source = Outside(*[TransientFailure("answered 503")] * 3, PermanentFailure("answered 400"))
    with executor(source, "search.service.retries=2") as runner:
        results = runner.execute([plan("a")]) + runner.execute([plan("b"), plan("c")])
    assert [r.error for (r,) in results] == ["answered 503 (tried 3 times)", "answered 400", None]


@pytest.mark.parametrize("stop", [AccessDenied("no key"), BudgetExceeded("no money")])
def test_what_stops_the_run_comes_after_what_is_in_flight(
    executor: Opener, stop: Exception
) -> None:
    class Stopping(Outside):
        async def work(self, request: SearchRequest) -> None:
            if request.query == "stops":
                raise stop
            while self.events.count("start stops") == 0:
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)

    source = Stopping()
    with executor(source) as runner:
        with pytest.raises(type(stop), match=str(stop)):
            runner.execute([plan("long", "child", edges="AB"), plan("stops")])
        assert source.events == ["start long", "start stops", "end long"]
    # What was in flight is paid for, and kept.
    with executor(Recorder(), "cache.mode=offline") as runner:
        ((result,),) = runner.execute([plan("long")])
        assert (result.cached, result.passages[0].id) == (True, "long")


def test_a_result_is_told_as_soon_as_it_is_there(executor: Opener) -> None:
    told: list[str] = []

    class Ordered(Recorder):
        async def work(self, request: SearchRequest) -> None:
            while request.query == "slow" and told != ["B", "C"]:
                await asyncio.sleep(0)

    with executor(Ordered()) as runner:
        (results,) = runner.execute(
            [plan("slow", "quick", "child fail", edges="BC")],
            lambda result: told.append(result.node.label),
        )
    assert told == ["B", "C", "A"]
    assert [r.node.label for r in results] == ["A", "B", "C"]


def test_another_thread_can_give_a_batch_up(executor: Opener) -> None:
    class Endless(Recorder):
        async def work(self, request: SearchRequest) -> None:
            if request.query == "endless":
                threading.Thread(target=runner.cancel).start()
                await asyncio.sleep(PATIENCE)

    with executor(Endless()) as runner:
        with pytest.raises(asyncio.CancelledError):
            runner.execute([plan("endless", "child", edges="AB")])
        runner.cancel()  # with nothing under way it does nothing
        ((result,),) = runner.execute([plan("a")])
        assert result.passages[0].id == "a"


def test_searches_are_paid_from_the_budget(executor: Opener) -> None:
    source = Outside()
    with executor(source, "budget.max_usd=0.02", "search.usd_per_search=0.01") as runner:
        runner.execute([plan("a", "b")])
        with pytest.raises(BudgetExceeded, match=r"the next call could cost \$0\.0100"):
            runner.execute([plan("c")])
        runner.execute([plan("a"), plan("b")])
    assert len(source.requests) == 2


def test_a_source_may_be_free(executor: Opener) -> None:
    class Free(Outside):
        usd_per_search = 0.0

    source = Free()
    executor(source, "budget.max_usd=0.0", "search.usd_per_search=0.01").execute([plan("a")])
    assert len(source.requests) == 1


def test_the_limits_of_a_service_hold_whatever_the_recipe_says(executor: Opener) -> None:
    class Polite(Outside):
        limits = CallLimits(concurrency=2)

        async def work(self, request: SearchRequest) -> None:
            await asyncio.sleep(0.001)

    source = Polite()
    executor(source, "search.service.concurrency=32").execute([plan(*"abcdefgh")])
    assert (len(source.requests), source.most_under_way) == (8, 2)


def test_a_local_source_is_free(executor: Opener) -> None:
    executor(Recorder(), "budget.max_usd=0.0").execute([plan("a")])


def test_offline_a_miss_names_the_query(executor: Opener) -> None:
    runner = executor(Outside(), "cache.mode=offline")
    with pytest.raises(OfflineMiss, match="no stored answer to 'mayor of Port Ellow'"):
        runner.execute([plan("mayor of Port Ellow")])


def test_other_exceptions_stop_the_batch(executor: Opener) -> None:
    class Broken(Recorder):
        async def work(self, request: SearchRequest) -> None:
            if request.query == "bad":
                raise ZeroDivisionError("a bug")
            await asyncio.Event().wait()

    source = Broken()
    with executor(source) as runner:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            runner.execute([plan("waits", "bad")])
        assert source.under_way == 0, "a search was left behind"
        with pytest.raises(KeyError, match="Nowhere"):
            runner.execute([plan("a", source="Nowhere")])


def test_equal_requests_of_a_batch_are_sent_once(executor: Opener) -> None:
    source = Recorder()
    with executor(source) as runner:
        results = runner.execute([plan("a", "b", "a", edges="BC"), plan("a "), plan("a")])
        nodes = [result for batch in results for result in batch]
        assert [result.cached for result in nodes].count(False) == 3
    # The child's expansion makes its request another one.
    assert sorted(r.query for r in source.requests) == ["a", "a", "b"]
    assert results[1][0].node.query == "a "
    assert results[1][0].passages == results[2][0].passages == results[0][0].passages


def test_answers_are_used_again_by_another_executor(executor: Opener) -> None:
    first, second = Recorder(), Recorder()
    ((asked,),) = executor(first).execute([plan("a")])
    assert not asked.cached
    with executor(second) as runner:
        ((known,), (new,)) = runner.execute([plan("a"), plan("b")])
        assert known == replace(asked, cached=True)
        assert not new.cached
    assert [r.query for r in second.requests] == ["b"]


def test_a_result_has_the_time_of_its_own_search_without_the_line_before_it(
    executor: Opener,
) -> None:
    class Slow(Outside):
        async def work(self, request: SearchRequest) -> None:
            await asyncio.sleep(0.05)

    with executor(Slow(), "search.service.concurrency=1") as runner:
        started = time.perf_counter()
        results = runner.execute([plan(query) for query in "abcd"])
        seconds = time.perf_counter() - started
        took = [result.seconds for nodes in results for result in nodes]
        assert min(took) >= 0.045
        assert max(took) < seconds / 2
        ((known,),) = runner.execute([plan("a")])
        assert (known.cached, known.seconds) == (True, 0.0)


def test_refresh_asks_everything_once_more(executor: Opener) -> None:
    source = Recorder()
    executor(source).execute([plan("a")])
    with executor(source, "cache.mode=refresh") as runner:
        runner.execute([plan("a")])
        runner.execute([plan("a")])
    assert len(source.requests) == 2


def test_a_stored_answer_without_passages_is_dropped_and_asked_for_again(
    executor: Opener, cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor(Recorder()).execute([plan("a")])
    with AnswerCache() as cache:
        assert cache.folder.parent == cache_folder
        rows = [{**row, "value": [{"id": "1"}]} for row in cache.export_rows()]
        assert cache.import_rows(rows) == 1
    ((result,),) = executor(Recorder()).execute([plan("a")])
    assert (result.error, result.cached) == (None, False)
    assert len(result.passages) == 1
    assert "an entry cannot be read (a passage does not have the fields" in capsys.readouterr().err
    ((again,),) = executor(Recorder()).execute([plan("a")])
    assert (again.passages, again.cached) == (result.passages, True)


def test_an_empty_batch_is_fine(executor: Opener) -> None:
    with executor(Recorder()) as runner:
        assert runner.execute([]) == []


@contextmanager
def over_corpus(corpus: list[Passage], *overrides: str) -> Iterator[PlanExecutor]:
    recipe = load_recipe("quickstart", overrides).recipe
    sources = open_sources(recipe.search, lambda: corpus)
    with (
        open_services(recipe, None) as services,
        PlanExecutor(sources, recipe.search, services) as runner,
    ):
        yield runner


@pytest.mark.parametrize(
    ("mode", "second"),
    [
        ("linked", "Tessa Korrin"),
        ("entities", "Tessa Korrin"),
        ("none", "Where founders are born"),
    ],
)
def test_the_second_hop_needs_what_the_first_one_found(
    corpus: list[Passage], mode: str, second: str
) -> None:
    overrides = ("search.top_k=3", f"search.expand_dependents={mode}")
    hops = plan("founder of Brindle Works", "where was the founder born", edges="AB")
    with over_corpus(corpus, *overrides) as runner:
        ((parent, child),) = runner.execute([hops])
    assert parent.passages[0].title == "Brindle Works"
    assert child.passages[0].title == second


def test_three_hops_lead_to_the_end(corpus: list[Passage]) -> None:
    hops = plan(
        "founder of Brindle Works", "birthplace of the founder", "mayor of the town", edges="AB BC"
    )
    with over_corpus(corpus, "search.top_k=3") as runner:
        (results,) = runner.execute([hops])
    assert [r.passages[0].title for r in results] == ["Brindle Works", "Tessa Korrin", "Port Ellow"]
    assert [r.expansion for r in results] == [(), ("Tessa Korrin",), ("Port Ellow",)]
