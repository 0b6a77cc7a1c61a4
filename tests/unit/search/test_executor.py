from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rsearch_cli.errors import SourceError
from rsearch_cli.recipe.schema import Search
from rsearch_cli.search.cache import SearchCache
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import SearchRequest, SearchSource, open_sources
from rsearch_cli.types import Passage, PlanNode, SearchPlan

# A guard against hanging, never waited for: what should not happen would wait forever.
PATIENCE = 10.0


def plan(*nodes: str, edges: str = "", source: str = "General") -> SearchPlan:
    """A plan of queries labelled A, B, ...; `edges` as in "AB BC"."""
    labels = "ABCDEFGH"
    return SearchPlan(
        tuple(PlanNode(labels[i], query, source) for i, query in enumerate(nodes)),
        tuple((edge[0], edge[1]) for edge in edges.split()),
    )


class Recorder:
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
def cache() -> Iterator[SearchCache]:
    with SearchCache() as cache:
        yield cache


def executor(source: SearchSource, cache: SearchCache | None = None, **search: int) -> PlanExecutor:
    return PlanExecutor({"General": source}, Search().model_copy(update=search), cache)


def test_results_come_in_plan_order() -> None:
    plans = [plan("c1", "root", edges="BA"), plan("x"), plan("y", "z")]
    with executor(Recorder()) as runner:
        results = runner.execute(plans)
    assert [[r.node for r in nodes] for nodes in results] == [list(p.nodes) for p in plans]
    assert [[r.passages[0].id for r in nodes] for nodes in results] == [
        ["c1", "root"], ["x"], ["y", "z"],
    ]  # fmt: skip


def test_nodes_of_a_wave_overlap_across_the_batch() -> None:
    source = Meeting(3)
    with executor(source) as runner:
        runner.execute([plan("a", "b"), plan("c")])
    assert [event.split()[0] for event in source.events] == ["start"] * 3 + ["end"] * 3


def test_a_child_starts_after_all_its_parents() -> None:
    source = Recorder()
    with executor(source) as runner:
        runner.execute([plan("a", "b", "c", edges="AC BC")])
    assert source.events.index("start c") > source.events.index("end a")
    assert source.events.index("start c") > source.events.index("end b")


def test_a_child_does_not_wait_for_strangers() -> None:
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


def test_concurrency_is_bounded_over_the_batch() -> None:
    source = Meeting(3)
    with executor(source, concurrency=3) as runner:
        runner.execute([plan("a", "b"), plan("c", "d"), plan("e", "f")])
    assert source.most_under_way == 3
    assert len(source.requests) == 6


def test_one_event_loop_serves_all_batches() -> None:
    source = Recorder()
    with executor(source) as runner:
        runner.execute([plan("a")])
        runner.execute([plan("b")])
    assert len(source.loops) == 1


def test_requests_carry_settings_and_expansion() -> None:
    source = Recorder()
    with executor(source, top_k=7, own_words_weight=2) as runner:
        ((parent, child),) = runner.execute([plan("a", "b", edges="AB")])
    assert source.requests == [
        SearchRequest("a", (), 7, 2),
        SearchRequest("b", ("Title A", "Named Thing"), 7, 2),
    ]
    assert parent.expansion == ()
    assert child.expansion == ("Title A", "Named Thing")


def test_a_failed_search_marks_its_node_alone(cache: SearchCache) -> None:
    source = Recorder()
    with executor(source, cache) as runner:
        failed, child, other = runner.execute([plan("fail", "b", "c", edges="AB")])[0]
        assert failed.error == "no answer to 'fail' after 3 tries"
        assert failed.passages == ()
        assert (child.error, child.expansion) == (None, ())
        assert other.error is None
        assert (runner.counts.searches, runner.counts.failed) == (3, 1)

        runner.execute([plan("fail")])
        assert runner.counts.failed == 2
    assert [r.query for r in source.requests].count("fail") == 2, "the error was stored"


def test_other_exceptions_stop_the_batch() -> None:
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
        with pytest.raises(KeyError, match="News"):
            runner.execute([plan("a", source="News")])


def test_equal_requests_of_a_batch_are_sent_once() -> None:
    source = Recorder()
    with executor(source) as runner:
        results = runner.execute([plan("a", "b", "a", edges="BC"), plan("a "), plan("a")])
        assert runner.counts.searches == 5
        assert runner.counts.sent == 3
    # The child's expansion makes its request another one.
    assert sorted(r.query for r in source.requests) == ["a", "a", "b"]
    assert results[1][0].node.query == "a "
    assert results[1][0].passages == results[2][0].passages == results[0][0].passages


def test_answers_are_used_again_by_another_executor() -> None:
    first, second = Recorder(), Recorder()
    with SearchCache() as cache, executor(first, cache) as runner:
        ((asked,),) = runner.execute([plan("a")])
        assert not asked.cached
    with SearchCache() as cache, executor(second, cache) as runner:
        ((known,), (new,)) = runner.execute([plan("a"), plan("b")])
        assert known == replace(asked, cached=True)
        assert not new.cached
        counts = runner.counts
        assert (counts.searches, counts.cache_hits, counts.sent) == (2, 1, 1)
        assert counts.seconds > 0
        assert (cache.hits, cache.misses) == (1, 1)
    assert [r.query for r in second.requests] == ["b"]


def test_without_a_cache_nothing_is_kept(cache_folder: Path) -> None:
    source = Recorder()
    with executor(source) as runner:
        runner.execute([plan("a")])
        runner.execute([plan("a")])
    assert len(source.requests) == 2
    assert not cache_folder.exists()


def test_an_empty_batch_is_fine() -> None:
    with executor(Recorder()) as runner:
        assert runner.execute([]) == []


@pytest.mark.parametrize(
    ("mode", "second"), [("entities", "Tessa Korrin"), ("none", "Where founders are born")]
)
def test_the_second_hop_needs_what_the_first_one_found(
    corpus: list[Passage], mode: str, second: str
) -> None:
    search = Search().model_copy(update={"expand_dependents": mode})
    hops = plan("founder of Brindle Works", "where was the founder born", edges="AB")
    with PlanExecutor(open_sources(search, lambda: corpus), search, None) as runner:
        ((parent, child),) = runner.execute([hops])
    assert parent.passages[0].title == "Brindle Works"
    assert child.passages[0].title == second


def test_three_hops_lead_to_the_end(corpus: list[Passage]) -> None:
    search = Search()
    hops = plan(
        "founder of Brindle Works", "birthplace of the founder", "mayor of the town", edges="AB BC"
    )
    with PlanExecutor(open_sources(search, lambda: corpus), search, None) as runner:
        (results,) = runner.execute([hops])
    assert [r.passages[0].title for r in results] == ["Brindle Works", "Tessa Korrin", "Port Ellow"]
    assert [r.expansion for r in results] == [(), ("Tessa Korrin",), ("Port Ellow",)]
