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

EXAMPLE = Path("docs/examples/crossref_source.py")
PLAN = SearchPlan(
    (PlanNode("A", "who founded Brindle Works", "General"), PlanNode("B", "her town", "General")),
    (("A", "B"),),
)


class CrossrefServer(LocalServer):
    """Crossref's search for works, with two works for every question, one without an abstract."""

    def respond(self, request: Received) -> Answer:
        assert (request.method, request.path) == ("GET", "/works")
        assert request.query.keys() == {"query", "rows", "select"}
        works = [
            {
                "URL": f"https://doi.org/10.5555/{len(self.requests)}",
                "title": ["Tessa Korrin"],
                "abstract": "<jats:p>She was born in <jats:i>Port Ellow</jats:i>.</jats:p>",
            },
            {"URL": "https://doi.org/10.5555/none"},
        ]
        items = works[: int(request.query["rows"])]
        message = {"total-results": 2, "items": items, "items-per-page": len(items)}
        return 200, {"status": "ok", "message-type": "work-list", "message": message}

    def describe_error(self, status: int, message: str) -> dict[str, object]:
        return {"status": "failed", "message": [{"type": "fault", "message": message}]}


@pytest.fixture
def server() -> Iterator[CrossrefServer]:
    with CrossrefServer(retry_after="0") as server:
        yield server


@pytest.fixture(autouse=True)
def installed(install: Callable[[str, str, str], None]) -> None:
    install("crossref_source", GROUP, "crossref = crossref_source:open_crossref")


def make_recipe(*settings: str) -> Recipe:
    overrides = [
        'protocol.sources={General: "the web"}',
        "search.sources={General: {type: crossref}}",
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


def test_it_carries_out_a_plan_and_is_cached(server: CrossrefServer, tmp_path: Path) -> None:
    recipe = make_recipe(f"search.sources.General.options.url={server.url}")
    founder, town = run_plan(recipe, tmp_path)
    assert [(p.id, p.title, p.text) for p in founder.passages] == [
        ("https://doi.org/10.5555/1", "Tessa Korrin", "She was born in Port Ellow.")
    ]
    assert [r.query["query"] for r in server.requests] == [
        "who founded Brindle Works",
        "her town Tessa Korrin Port Ellow",
    ]
    assert [result.cached for result in run_plan(recipe, tmp_path)] == [True, True]
    assert len(server.requests) == 2
    assert town.error is None


@pytest.mark.parametrize("fault", [Fault.RATE_LIMIT, Fault.CUT, Fault.HTML, Fault.BAD_JSON])
def test_it_is_retried(server: CrossrefServer, fault: Fault, tmp_path: Path) -> None:
    server.faults = Faults([fault], first=2)
    recipe = make_recipe(f"search.sources.General.options.url={server.url}")
    assert [result.error for result in run_plan(recipe, tmp_path)] == [None, None]
    assert len(server.requests) == 4


def test_what_it_cannot_answer_marks_its_node(server: CrossrefServer, tmp_path: Path) -> None:
    server.faults = Faults([Fault.BAD_REQUEST], first=1)
    recipe = make_recipe(f"search.sources.General.options.url={server.url}")
    founder, town = run_plan(recipe, tmp_path)
    assert founder.error == "Crossref does not accept the query"
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
    assert len(source.splitlines()) <= 46
    assert f"```python\n{source}```\n" in page
    assert f'[project.entry-points."{GROUP}"]\ncrossref = "crossref_source:open_crossref"' in page
