"""Whatever a model, a passage or a server says, the page shows it as text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hostile_texts import CONTROLS, HOSTILE
from page_server import PageServer, Reply
from scripted_events import events_of

from rsearch_cli.types import Paragraph, Passage, PlanNode, SearchPlan, Sentence

STRUCTURE = """() => {
    const tags = {};
    for (const e of document.querySelectorAll("*")) {
        tags[e.localName] = (tags[e.localName] ?? 0) + 1;
        for (const { name } of e.attributes) {
            if (name.startsWith("on") || name === "style") throw new Error(name);
        }
    }
    const odd = ["iframe", "object", "embed", "img", "form", "video", "audio", "template", "math",
        "base", "animate", "style", "script", "link", "meta", "input"].filter((t) => t in tags);
    const links = [...document.querySelectorAll("a")].map((a) => a.getAttribute("href"));
    const text = document.body.innerText;
    return { counts: Object.fromEntries(odd.map((t) => [t, tags[t]])), links, text,
        hit: window.hit ?? null, polluted: ({}).polluted ?? null, title: document.title };
}"""


def hostile_events(text: str) -> list[dict[str, Any]]:
    """Events with the text in every place that holds text from outside."""
    passage = Passage(text, text, text, score=1.0)
    plan = SearchPlan((PlanNode("A", text, text), PlanNode(text, "two", "General")), (("A", text),))
    paragraph = Paragraph((Sentence(text, (1,)), Sentence(text, (1,), text)), text)
    events = events_of(
        text,
        text,
        {"A": [passage], text: text},
        plan=plan,
        thought=text,
        asked_as=text,
        paragraph=paragraph,
    )
    broken = {"type": "plan", "round": 1, "valid": False, "problems": [text] * 3}
    return [*events[:-1], broken | {"nodes": [], "edges": []}, events[-1] | {"note": text}]


def ask(page: Any, question: str, done: str = ".turn-foot") -> Any:
    count = page.locator(".turn").count()
    page.fill("#question", question)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").nth(count)
    turn.locator(done).wait_for()
    return turn


def check_inert(page: Any, before: dict[str, Any]) -> None:
    now = page.evaluate(STRUCTURE)
    assert now["counts"] == before["counts"]
    assert (now["hit"], now["polluted"], now["title"]) == (None, None, "rsearch")
    assert all(link.startswith(("#", "http://", "https://")) for link in now["links"])
    assert [c for c in CONTROLS if c in now["text"]] == []


def test_there_are_fifty_of_them() -> None:
    assert len(set(HOSTILE)) >= 50


@pytest.mark.parametrize("part", range(4))
def test_hostile_text_stays_text_wherever_it_stands(
    server: PageServer, page: Any, fits_width: Callable[[Any], None], part: int
) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    before = page.evaluate(STRUCTURE)
    for text in HOSTILE[part::4]:
        server.replies.clear()
        server.replies.append(Reply(hostile_events(text)))
        turn = ask(page, "Well?")
        check_inert(page, before)
        fits_width(page)
        for opener in (".node >> nth=0", ".node >> nth=1", ".cite >> nth=0"):
            turn.locator(opener).click()
            check_inert(page, before)
            fits_width(page)
            page.keyboard.press("Escape")
        page.click("#new")
    page.click("#open-history")
    check_inert(page, before)
    page.locator(".reopen").first.click()
    page.locator(".turn-foot").wait_for()
    check_inert(page, before)


def test_errors_of_a_server_are_text(server: PageServer, page: Any, watch: Any) -> None:
    watch.allow(r"the server responded with a status of 500")
    before = page.evaluate(STRUCTURE)
    for text in HOSTILE[:12]:
        server.replies.clear()
        server.replies.append(Reply(status=500, message=text, headers={"Retry-After": "<b>1</b>"}))
        ask(page, text, ".failure")
        check_inert(page, before)
        page.click("#new")


def test_control_characters_are_seen(server: PageServer, page: Any) -> None:
    passage = Passage("p", "\u202etitle", "a\x1b[31m b\x00 c\u202ed\x9b")
    server.replies.append(Reply(events_of("?", "a", {"A": [passage], "B": []})))
    turn = ask(page, "Well?")
    turn.locator(".node").first.click()
    panel = page.locator("#passages")
    assert panel.locator("h3").inner_text() == "[U+202E]title"
    assert panel.locator("div.foreign").inner_text() == "a␛[31m b␀ c[U+202E]d[U+009B]"


def test_right_to_left_text_does_not_move_what_is_beside_it(server: PageServer, page: Any) -> None:
    passage = Passage("p", "\u05e9\u05dc\u05d5\u05dd 5", "\u05e9\u05dc\u05d5\u05dd")
    answer = "\u05e9\u05dc\u05d5\u05dd"
    server.replies.append(Reply(events_of("?", answer, {"A": [passage], "B": []})))
    turn = ask(page, "Well?")
    answered, cite = turn.locator(".answer bdi"), turn.locator(".cite")
    assert answered.bounding_box()["x"] < cite.bounding_box()["x"]
    number, title = turn.locator("li .number"), turn.locator("li .title")
    assert number.bounding_box()["x"] < title.bounding_box()["x"]


@pytest.mark.parametrize("unit", ["word ", "x", "\u05d0", "\u0301", "<b>\n"])
def test_a_megabyte_does_not_freeze_the_page(server: PageServer, page: Any, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    passage = Passage(text, text, text)
    events = events_of("?", text, {"A": [passage], "B": text}, thought=text)
    server.replies.append(Reply(events))
    page.evaluate(
        """() => { window.longest = 0; let last = performance.now();
        (function beat() { const now = performance.now(); window.longest = Math.max(window.longest,
        now - last); last = now; setTimeout(beat, 10); })(); }"""
    )
    started = time.monotonic()
    turn = ask(page, "Well?")
    assert time.monotonic() - started < 10
    shown = len(page.evaluate("document.body.textContent"))
    assert shown < 150_000
    turn.locator(".node").first.click()
    more = page.locator("#passages .show-all")
    assert more.inner_text() == f"Show all {len(text):,} characters"
    more.click()
    pieces = page.locator("#passages .text-piece")
    pieces.nth(48).wait_for(state="attached", timeout=20_000)
    assert page.evaluate("longest") < 3_000
    page.keyboard.press("Escape")
    assert page.locator("#passages").is_hidden()
    assert len(page.evaluate("JSON.stringify(localStorage)")) < 300_000


def test_answers_of_another_shape_are_a_failure_and_not_a_blank_page(
    server: PageServer, page: Any, watch: Any
) -> None:
    for odd in (
        {"type": "finished"},
        {"type": "plan"},
        {"type": "result", "round": 7},
        {"type": 3},
    ):
        server.replies.clear()
        server.replies.append(Reply([json.loads(json.dumps(odd))]))
        turn = ask(page, "Well?", ".turn-foot, .failure")
        assert turn.inner_text()
        page.click("#new")
