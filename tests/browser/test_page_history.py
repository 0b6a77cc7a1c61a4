"""Conversations in the browser's storage: bounded, damaged, cut off."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from page_server import PageServer, Reply, ask
from scripted_events import BOOK, EVENTS, PERSON, QUESTION, events_of

from rsearch_cli.types import Paragraph, Passage, Sentence

ANSWERED = Reply(EVENTS)


def test_a_question_that_was_cut_off_by_a_reload_can_be_asked_again(
    server: PageServer, page: Any
) -> None:
    server.replies += [Reply([*EVENTS[:4], threading.Event()]), ANSWERED]
    ask(page).locator(".node.found").wait_for()
    page.reload()
    turn = page.locator(".turn")
    assert turn.locator(".question").inner_text() == QUESTION
    assert turn.locator(".state").all_text_contents() == ["1 found", "not run"]
    turn.locator(".retry").click()
    page.locator(".cost").wait_for()
    assert page.locator(".turn").count() == 1


def test_history_is_bounded_and_survives_damaged_entries(server: PageServer, page: Any) -> None:
    long = Passage("p", "Long", "words " * 100_000)
    server.replies.append(Reply(events_of(QUESTION, "Hanzur", {"A": [long], "B": [PERSON]})))
    ask(page).locator(".cost").wait_for()
    key = "rsearch.conversations"
    stored = json.loads(page.evaluate(f"localStorage.getItem('{key}')"))
    assert len(json.dumps(stored)) < 50_000
    many = [stored[0] | {"id": f"old-{i}", "title": f"old {i}"} for i in range(80)]
    damaged = [None, 3, {"id": 1}, {"id": "x", "turns": [{"question": "q"}]}]
    page.evaluate("([k, v]) => localStorage.setItem(k, v)", [key, json.dumps(damaged + many)])
    ask(page, "Another").locator(".cost").wait_for()
    kept = json.loads(page.evaluate(f"localStorage.getItem('{key}')"))
    assert len(kept) == 50
    assert len(json.dumps(kept)) <= 2_100_000
    page.click("#open-history")
    assert page.locator("#conversations li").count() == 50
    page.keyboard.press("Escape")
    page.evaluate(f"localStorage.setItem('{key}', 'not JSON')")
    page.click("#open-history")
    assert page.locator("#conversations").inner_text() == "Nothing yet."


def damaged(value: Any) -> Iterator[Any]:
    """Copies of a JSON value, each with one part replaced by something of another kind."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            for part in (None, 7, "text", [], {}, [None], {"a": 1}, *damaged(value[key])):
                copy = value.copy()
                copy[key] = part
                yield copy


def test_damaged_conversations_are_left_out_or_shown(server: PageServer, page: Any) -> None:
    events = events_of(
        QUESTION, "Hanzur", {"A": [BOOK], "B": "x"}, paragraph=Paragraph((Sentence("S.", (1,)),))
    )
    server.replies.append(Reply(events))
    ask(page).locator(".cost").wait_for()
    key = "rsearch.conversations"
    (whole,) = json.loads(page.evaluate(f"localStorage.getItem('{key}')"))
    copies = [{**copy, "id": f"c{n}"} for n, copy in enumerate(damaged(whole))]
    assert len(copies) > 500
    set_item = "([k, v]) => localStorage.setItem(k, v)"
    page.click("#new")
    # A turn of each is shown in one go: the list itself holds fifty conversations only.
    turns = [turn for copy in copies if isinstance(copy["turns"], list) for turn in copy["turns"]]
    each = [{"id": f"t{n}", "at": 0, "title": "t", "turns": [turn]} for n, turn in enumerate(turns)]
    page.evaluate(set_item, [key, json.dumps([*each, *copies])])
    shown = page.evaluate(
        """async () => {
            const { listConversations } = await import("/static/history.js");
            const { TurnView } = await import("/static/turn_view.js");
            const found = listConversations();
            for (const { turns } of found) for (const turn of turns) {
                const view = new TurnView(turn, {});
                document.getElementById("turns").append(view.element);
                view.paint();
                view.close();
            }
            return found.length;
        }"""
    )
    assert 50 < shown < len(each) + len(copies)
    page.click("#open-history")
    page.locator(".reopen").last.wait_for()
