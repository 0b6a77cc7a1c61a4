"""Plans on Exa, through the whole layer: executor, client, cache, retries, the real client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exa import API_KEY, ExaServer
from local_http import Raw

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.cache import AnswerCache
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import NodeResult, PlanNode, SearchPlan

PLAN = SearchPlan(
    (
        PlanNode("A", "who founded Brindle Works", "General"),
        PlanNode("B", "storm at Port Ellow", "News"),
        PlanNode("C", "what she wrote", "Academy"),
    ),
    (("A", "C"),),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExaServer]:
    with ExaServer(retry_after="0", stall_seconds=20.0) as server:
        monkeypatch.setenv("EXA_API_KEY", API_KEY)
        monkeypatch.setenv("EXA_BASE_URL", server.url)
        yield server


@pytest.fixture
def recipe() -> Recipe:
    overrides = [
        *(f"search.sources.{name}.type=exa" for name in ("General", "News", "Academy")),
        "search.top_k=2",
        "search.service.requests_per_second=1000",
        "search.service.timeout_seconds=2",
        "search.service.max_backoff_seconds=0",
        "search.service.retries=6",
    ]
    return load_recipe("quickstart", overrides).recipe


def run_plan(recipe: Recipe, tmp_path: Path) -> tuple[NodeResult, ...]:
    sources = open_sources(recipe.search, list)
    with (
        open_services(recipe, tmp_path / "run", tmp_path / "cache") as services,
        PlanExecutor(sources, recipe.search, services) as executor,
    ):
        return executor.execute([PLAN])[0]


def test_a_plan_is_searched_once_and_then_kept(
    server: ExaServer, recipe: Recipe, tmp_path: Path
) -> None:
    first = run_plan(recipe, tmp_path)
    assert [len(result.passages) for result in first] == [2, 2, 2]
    assert len(server.requests) == 3
    child = next(r.body for r in server.requests if r.body.get("category") == "publication")
    assert child["query"] == " ".join(["what she wrote", *first[2].expansion])
    again = run_plan(recipe, tmp_path)
    assert len(server.requests) == 3
    assert [result.cached for result in again] == [True, True, True]
    assert [result.passages for result in again] == [result.passages for result in first]


def test_a_result_with_neither_title_nor_text_is_not_cited(
    server: ExaServer, recipe: Recipe, tmp_path: Path
) -> None:
    server._find_pages = lambda body: [
        {"url": "https://a.example/empty", "title": " ", "text": "\n"},
        {"url": "https://a.example/full", "title": "A title", "text": ""},
    ]
    for result in run_plan(recipe, tmp_path):
        assert [passage.id for passage in result.passages] == ["https://a.example/full"]


def test_a_slow_drip_ends_at_the_timeout(server: ExaServer, recipe: Recipe, tmp_path: Path) -> None:
    drip = Raw(b'{"results": []}' + b" " * 100, pause=0.2, parts=100)
    server.respond = lambda request: (200, drip)
    service = recipe.search.service.model_copy(update={"timeout_seconds": 0.7, "retries": 0})
    quick = recipe.search.model_copy(update={"service": service})
    started = time.monotonic()
    results = run_plan(recipe.model_copy(update={"search": quick}), tmp_path)
    assert time.monotonic() - started < 5.0  # two waves of at most 0.7 s each
    assert {result.error for result in results} == {"no answer within 0.7 s"}


def test_what_was_kept_for_a_category_that_exa_renamed_is_not_served(
    server: ExaServer, recipe: Recipe, tmp_path: Path
) -> None:
    run_plan(recipe, tmp_path)
    with AnswerCache(tmp_path / "cache") as cache:
        rows = list(cache.export_rows())
        old = [row | {"key": str(row["key"]).replace("publication", "research paper")}
               for row in rows]  # fmt: skip
        cache.clear()
        assert cache.import_rows(old) == 3
    sent = len(server.requests)
    results = run_plan(recipe, tmp_path)
    assert [result.cached for result in results] == [True, True, False]
    assert [r.body["category"] for r in server.requests[sent:]] == ["publication"]
