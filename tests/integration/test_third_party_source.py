"""The source of docs/extending.md, installed as its users would install it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Fault, Faults
from local_http import Answer, LocalServer, Received

from rsearch_cli.errors import RecipeKeyError
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import GROUP, open_sources
from rsearch_cli.services.runtime import open_services
from rsearch_cli.types import NodeResult, PlanNode, SearchPlan

EXAMPLE = Path("docs/examples/searxng_source.py")
PLAN = SearchPlan(
    (PlanNode("A", "who founded Brindle Works", "General"), PlanNode("B", "her town", "General")),
    (("A", "B"),),
)


class SearxngServer(LocalServer):
    """SearXNG's JSON search, with one page for every question."""

    def respond(self, request: Received) -> Answer:
        assert request.query["format"] == "json"
        page = {
            "url": f"https://a.example/{len(self.requests)}",
            "title": "Tessa Korrin",
            "content": "She was born in Port Ellow.",
        }
        return 200, {"results": [page, page | {"url": "https://b.example"}]}

    def describe_error(self, status: int, message: str) -> str:
        return message


@pytest.fixture
def server() -> Iterator[SearxngServer]:
    with SearxngServer(retry_after="0") as server:
        yield server


@pytest.fixture(autouse=True)
def installed(install: Callable[[str, str, str], None]) -> None:
    install("searxng_source", GROUP, "searxng = searxng_source:open_searxng")


def make_recipe(*settings: str) -> Recipe:
    overrides = [
        'protocol.sources={General: "the web"}',
        "search.sources={General: {type: searxng}}",
        "search.top_k=1",
        "search.service.requests_per_second=1000",
        "search.service.max_backoff_seconds=0",
        "search.service.retries=2",
        *settings,
    ]
    return load_recipe("quickstart", overrides).recipe


def run_plan(recipe: Recipe, tmp_path: Path) -> tuple[NodeResult, ...]:
    sources = open_sources(recipe.search, list)
    with (
        open_services(recipe, tmp_path / "run", tmp_path / "cache") as services,
        PlanExecutor(sources, recipe.search, services) as executor,
    ):
        return executor.execute([PLAN])[0]


def test_it_carries_out_a_plan_and_is_cached(server: SearxngServer, tmp_path: Path) -> None:
    recipe = make_recipe(f"search.sources.General.options.url={server.url}")
    founder, town = run_plan(recipe, tmp_path)
    assert [(p.id, p.title, p.text) for p in founder.passages] == [
        ("https://a.example/1", "Tessa Korrin", "She was born in Port Ellow.")
    ]
    assert [r.query["q"] for r in server.requests] == [
        "who founded Brindle Works",
        "her town Tessa Korrin Port Ellow",
    ]
    assert [result.cached for result in run_plan(recipe, tmp_path)] == [True, True]
    assert len(server.requests) == 2
    assert town.error is None


@pytest.mark.parametrize("fault", [Fault.RATE_LIMIT, Fault.CUT, Fault.HTML, Fault.BAD_JSON])
def test_it_is_retried(server: SearxngServer, fault: Fault, tmp_path: Path) -> None:
    server.faults = Faults([fault], first=2)
    recipe = make_recipe(f"search.sources.General.options.url={server.url}")
    assert [result.error for result in run_plan(recipe, tmp_path)] == [None, None]
    assert len(server.requests) == 4


def test_what_it_cannot_answer_marks_its_node(server: SearxngServer, tmp_path: Path) -> None:
    server.faults = Faults([Fault.FORBIDDEN], first=1)
    recipe = make_recipe(f"search.sources.General.options.url={server.url}")
    founder, town = run_plan(recipe, tmp_path)
    assert founder.error == "SearXNG gives no JSON: add it to search.formats there"
    assert town.passages


def test_its_options_are_checked() -> None:
    recipe = make_recipe("search.sources.General.options={uri: http://localhost}")
    with pytest.raises(RecipeKeyError) as caught:
        open_sources(recipe.search, list)
    assert str(caught.value) == (
        "unknown key search.sources.General.options.uri; did you mean url?"
    )


def test_it_is_short_and_stands_in_the_documentation(repository: Path) -> None:
    source = (repository / EXAMPLE).read_text(encoding="utf-8")
    page = (repository / "docs/extending.md").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 40
    assert f"```python\n{source}```\n" in page
    assert f'[project.entry-points."{GROUP}"]\nsearxng = "searxng_source:open_searxng"' in page
