"""The graph of a plan: layout, states, keyboard, width; in the browser."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from page_server import PageServer

CHAIN = {
    "nodes": [
        {"label": "A", "query": "author of The Gorpus Lantern", "source": "General"},
        {"label": "B", "query": "birthplace", "source": "General"},
    ],
    "edges": [["A", "B"]],
}
DRAW = """async ([plan, width, options]) => {
    const { PlanGraph } = await import("/static/plan_graph.js");
    const main = document.querySelector("main");
    main.replaceChildren();
    main.style.width = `${width}px`;
    window.opened = [];
    const graph = new PlanGraph(plan, { open: (label) => window.opened.push(label), ...options });
    main.append(graph.element);
    graph.update([]);
    window.graph = graph;
}"""
BOXES = """() => [...document.querySelectorAll(".plan-graph .node")].map((g) => {
    const { left, right, top, bottom } = g.querySelector(".box").getBoundingClientRect();
    return { label: g.dataset.label, left, right, top, bottom };
})"""


@pytest.fixture
def draw(server: PageServer, new_page: Callable[..., Any]) -> Callable[..., Any]:
    page = new_page()
    page.goto(f"{server.url}/blank")

    def draw(plan: Any, width: int = 700, **options: Any) -> Any:
        page.set_viewport_size({"width": width + 40, "height": 800})
        page.evaluate(DRAW, [plan, width, options])
        return page

    return draw


def plan_of(count: int, edges: list[list[str]]) -> dict[str, Any]:
    labels = "ABCDEFGH"[:count]
    query = "which of the two rivers near the old town is longer"
    return {
        "nodes": [{"label": n, "query": f"{query} {n}", "source": "General"} for n in labels],
        "edges": edges,
    }


PLANS = {
    "one": plan_of(1, []),
    "eight at once": plan_of(8, []),
    "chain of eight": plan_of(8, [[a, b] for a, b in itertools.pairwise("ABCDEFGH")]),
    "all edges": plan_of(8, [list(pair) for pair in itertools.combinations("ABCDEFGH", 2)]),
    "fan in": plan_of(8, [[a, "H"] for a in "ABCDEFG"]),
    "diamond": plan_of(4, [["A", "B"], ["A", "C"], ["B", "D"], ["C", "D"], ["A", "D"]]),
}


@pytest.mark.parametrize("width", [320, 700, 1100])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_nodes_fit_and_do_not_overlap(
    draw: Callable[..., Any], plan: dict[str, Any], width: int
) -> None:
    page = draw(plan, width)
    boxes = page.evaluate(BOXES)
    assert [box["label"] for box in boxes] == [node["label"] for node in plan["nodes"]]
    main = page.locator("main").bounding_box()
    left, right = main["x"] - 1, main["x"] + main["width"] + 1
    assert all(left <= box["left"] and box["right"] <= right for box in boxes)
    for a, b in itertools.combinations(boxes, 2):
        apart = a["right"] <= b["left"] or b["right"] <= a["left"]
        assert apart or a["bottom"] <= b["top"] or b["bottom"] <= a["top"], (a, b)
    assert page.locator(".plan-graph .edge").count() == len(plan["edges"])
    texts = """() => [...document.querySelectorAll(".plan-graph .node")].every((g) => {
        const box = g.querySelector(".box").getBoundingClientRect();
        return [...g.querySelectorAll("text")].every((t) => {
            const r = t.getBoundingClientRect();
            return r.left >= box.left - 1 && r.right <= box.right + 1 && r.bottom <= box.bottom + 1;
        });
    })"""
    assert page.evaluate(texts)


def test_a_node_waits_for_its_parents_and_shows_what_was_found(draw: Callable[..., Any]) -> None:
    page = draw(CHAIN)
    assert page.locator(".state").all_text_contents() == ["searching", "waiting"]
    found = {"node": "A", "error": None, "cached": False, "passages": [{}, {}]}
    failed = {"node": "B", "error": "timed out", "cached": False, "passages": []}
    page.evaluate("(r) => graph.update(r)", [found])
    assert page.locator(".state").all_text_contents() == ["2 found", "searching"]
    page.evaluate("(r) => graph.update(r, true)", [found])
    assert page.locator(".state").all_text_contents() == ["2 found", "not run"]
    page.evaluate("(r) => graph.update(r)", [found, failed])
    assert page.locator(".state").all_text_contents() == ["2 found", "failed"]
    name = page.locator(".node").last.get_attribute("aria-label")
    assert name == "B: birthplace; source General; after A; failed: timed out"
    empty = failed | {"error": None}
    page.evaluate("(r) => graph.update(r)", [found, empty])
    assert page.locator(".node.empty .state").text_content() == "0 found"


def test_nodes_open_by_mouse_and_by_keyboard(draw: Callable[..., Any]) -> None:
    page = draw(CHAIN)
    page.locator(".node").first.click()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.evaluate("opened") == ["A", "B", "B"]


def test_focus_survives_a_change_of_width(draw: Callable[..., Any]) -> None:
    page = draw(CHAIN)
    page.locator(".node").last.focus()
    page.evaluate("document.querySelector('main').style.width = '300px'")
    page.locator(".plan-graph svg[width='300']").wait_for()
    assert page.evaluate("document.activeElement.dataset.label") == "B"


def test_long_queries_are_cut_and_whole_in_the_title(draw: Callable[..., Any]) -> None:
    query = "Donaudampfschifffahrtsgesellschaft " * 9
    plan = {"nodes": [{"label": "Label", "query": query, "source": "S" * 90}], "edges": []}
    page = draw(plan, 320)
    lines = page.locator(".node text:not([class])").all_text_contents()
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert query.strip() in page.locator(".node title").text_content()


def test_markup_in_a_plan_is_text(draw: Callable[..., Any]) -> None:
    bad = "</text><script>alert(1)</script><img src=x onerror=alert(1)>"
    plan = {"nodes": [{"label": bad, "query": bad, "source": bad}], "edges": [[bad, bad], ["?", 1]]}
    page = draw(plan)
    assert page.locator("script, img").count() == 0
    assert bad in page.locator(".node title").text_content()


def test_a_cycle_is_drawn_all_the_same(draw: Callable[..., Any]) -> None:
    page = draw(CHAIN | {"edges": [["A", "B"], ["B", "A"]]})
    assert page.locator(".node").count() == 2
