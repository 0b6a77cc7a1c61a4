"""The page while an answer comes, when it is stopped, and when the server refuses or breaks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from page_server import PageServer, Reply, ask
from scripted_events import BOOK, EVENTS, PERSON, QUESTION, events_of

from rsearch_cli.types import Paragraph, Sentence

ANSWERED = Reply(EVENTS)
REFUSED = r"the server responded with a status of \d+"


def test_the_steps_appear_as_they_come(server: PageServer, page: Any) -> None:
    asked, thought, plan, first, second, text, finished = EVENTS
    gates = [threading.Event() for _ in range(6)]
    parts = zip((asked, thought, plan, first, second, text), gates, strict=True)
    server.replies.append(Reply([*(part for pair in parts for part in pair), finished]))
    following = iter(gates)
    turn = ask(page)
    working = turn.locator(".working")
    states = turn.locator(".plan-graph .state")
    for said in ("Waiting for the agent", "Thinking", "Searching: 0 of 2 done"):
        turn.get_by_text(said).wait_for()
        if said.startswith("Searching"):
            assert states.all_text_contents() == ["searching", "waiting"]
        next(following).set()
    turn.get_by_text("Searching: 1 of 2 done").wait_for()
    assert states.all_text_contents() == ["1 found", "searching"]
    turn.locator(".node").first.click()
    page.locator("#passages").get_by_text("is a play by").wait_for()
    page.keyboard.press("Escape")
    next(following).set()
    turn.get_by_text("Reading the results").wait_for()
    next(following).set()
    turn.get_by_text("Writing the answer").wait_for()
    assert turn.locator(".answer").inner_text() == "Hanzur"
    next(following).set()
    turn.locator(".cite").wait_for()
    assert working.is_hidden()
    assert turn.locator(".sources h3 + ol .title").all_inner_texts() == ["Bostes Garjus"]
    assert turn.locator("summary").inner_text() == "1 more found"


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_ends_the_request_and_keeps_what_was_there(
    server: PageServer, page: Any, how: str
) -> None:
    hung_up = server.hung_up
    server.replies += [Reply([*EVENTS[:4], 30.0]), ANSWERED]
    turn = ask(page)
    turn.locator(".node.found").wait_for()
    page.click("#stop") if how == "button" else page.keyboard.press("Escape")
    turn.get_by_text("Stopped.").wait_for()
    turn.get_by_role("button", name="Ask again").wait_for()
    assert turn.locator(".state").all_text_contents() == ["1 found", "not run"]
    ask(page, "And then?").locator(".cost").wait_for()
    assert server.hung_up == hung_up + 1
    assert [m["content"] for m in server.requests[-1]["messages"]] == ["And then?"]


def test_a_follow_up_shows_how_it_was_asked(server: PageServer, page: Any) -> None:
    second = events_of("And where?", "Hanzur", {"A": [BOOK], "B": [PERSON]}, asked_as=QUESTION)
    server.replies += [ANSWERED, Reply(second)]
    ask(page).locator(".cost").wait_for()
    turn = ask(page, "And where?")
    turn.locator(".cost").wait_for()
    assert turn.locator(".asked-as").inner_text() == f"Asked as: {QUESTION}"
    sent = server.requests[-1]
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "user"]
    page.click("#new")
    ask(page, "Afresh").locator(".cost").wait_for()
    assert [m["content"] for m in server.requests[-1]["messages"]] == ["Afresh"]


def test_a_paragraph_cites_each_sentence_and_marks_what_no_passage_holds(
    server: PageServer, page: Any
) -> None:
    paragraph = Paragraph(
        (
            Sentence("The play is by Bostes Garjus.", (2,)),
            Sentence("He was a sailor.", (1,), "[1] does not hold sailor"),
        )
    )
    events = events_of(QUESTION, "Hanzur", {"A": [BOOK], "B": [PERSON]}, paragraph=paragraph)
    server.replies.append(Reply(events))
    page.select_option("#style", "paragraph")
    turn = ask(page)
    turn.locator(".cost").wait_for()
    assert server.requests[-1]["rsearch"]["style"] == "paragraph"
    assert turn.locator(".answer .short .sentence").inner_text() == "Hanzur"
    sentences = turn.locator(".paragraph .sentence")
    assert sentences.all_inner_texts() == ["The play is by Bostes Garjus.", "He was a sailor."]
    assert turn.locator(".paragraph .unsupported").inner_text() == "He was a sailor."
    assert turn.locator(".unsupported-mark").get_attribute("title") == "[1] does not hold sailor"
    turn.locator(".paragraph .cite").first.click()
    marks = page.locator("#passages mark").all_inner_texts()
    assert marks == ["play", "Bostes Garjus"]


def test_answers_are_copied_where_the_clipboard_is_out_of_reach(
    server: PageServer, new_page: Callable[..., Any]
) -> None:
    """As on a page of another machine without https."""
    page = new_page()
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    server.replies.append(ANSWERED)
    page.goto(server.url)
    turn = ask(page)
    page.evaluate("addEventListener('copy', (e) => (window.copied = e.target.value))")
    turn.get_by_role("button", name="Copy", exact=True).press("Enter")
    turn.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("copied") == "Hanzur"
    assert page.evaluate("document.activeElement.textContent") == "Copied"


def test_links_are_those_of_the_web_and_say_where_they_lead(server: PageServer, page: Any) -> None:
    server.replies.append(ANSWERED)
    ask(page).locator(".cite").click()
    link = page.locator("#passages a")
    assert link.get_attribute("href") == "https://example.org/garjus"
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert link.get_attribute("target") == "_blank"
    assert link.locator("bdi").inner_text() == "example.org"
    page.keyboard.press("Escape")
    page.locator("summary").click()
    page.locator("details .title").click()
    assert page.locator("#passages a").count() == 0
    assert "book" in page.locator("#passages .passage-meta").inner_text()


@pytest.mark.parametrize(
    ("reply", "title"),
    [
        (Reply(status=429, message="8 wait", headers={"Retry-After": "7"}), "Try again in 7 s."),
        (Reply(status=503, message="draining"), "The server is not taking questions now."),
        (Reply(status=402, message="$1.00 of $1.00"), "The budget is spent."),
        (Reply(status=502, message="timed out"), "A service that the agent needs did not reply."),
        (Reply(EVENTS[:3], cut=True), "The connection broke before the answer was complete."),
        (Reply([*EVENTS[:3], {"error": {"message": "boom"}}], cut=True), "boom"),
    ],
    ids=["429", "503", "402", "502", "cut", "in the stream"],
)
def test_a_failure_is_put_in_plain_words_and_can_be_tried_again(
    server: PageServer, page: Any, watch: Any, reply: Reply, title: str
) -> None:
    watch.allow(REFUSED)
    server.replies += [reply, ANSWERED]
    turn = ask(page)
    failure = turn.locator(".failure")
    failure.wait_for()
    assert title in failure.inner_text()
    if reply.message:
        assert reply.message in failure.inner_text()
    failure.get_by_role("button", name="Try again").click()
    page.locator(".cost").wait_for()
    assert page.locator(".turn").count() == 1
    assert page.locator(".answer .sentence").inner_text() == "Hanzur"


def test_a_server_that_is_gone_is_said_to_be_gone(new_page: Callable[..., Any], watch: Any) -> None:
    watch.allow("ERR_CONNECTION_REFUSED")
    page = new_page()
    with PageServer() as server:
        page.goto(server.url)
        page.locator("#model:not(:empty)").wait_for()
    failure = ask(page).locator(".failure")
    failure.wait_for()
    assert "The server cannot be reached." in failure.inner_text()
    assert page.locator("#progress").text_content().startswith("The server cannot be reached.")


def test_another_model_after_a_restart_is_taken(server: PageServer, page: Any, watch: Any) -> None:
    watch.allow(REFUSED)
    server.replies.append(ANSWERED)
    page.select_option("#style", "paragraph")
    server.model = "another"
    ask(page).locator(".cost").wait_for()
    assert page.locator("#model").inner_text() == "another"
    assert server.requests[-1]["rsearch"]["style"] == "paragraph"


def test_a_key_is_asked_for_once_and_kept_for_the_tab_only(
    server: PageServer, new_page: Callable[..., Any], watch: Any
) -> None:
    watch.allow(REFUSED)
    server.key = "secret-1"
    server.replies.append(ANSWERED)
    page = new_page()
    page.goto(server.url)
    page.wait_for_selector("#key[open]")
    page.keyboard.press("Escape")
    turn = ask(page)
    page.wait_for_selector("#key[open]")
    for key in ("wr\u00f6ng", "wrong"):  # the first one cannot be sent in a header
        page.fill("#key-field", key)
        page.keyboard.press("Enter")
    page.wait_for_selector("#key-refused")
    page.keyboard.type("secret-1")
    page.keyboard.press("Enter")
    turn.locator(".cost").wait_for()
    page.reload()
    page.locator("#model:not(:empty)").wait_for()
    stored = page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
    assert "secret-1" not in stored[0]
    assert "secret-1" in stored[1]
    assert "secret-1" not in page.content()


def test_a_key_that_is_not_given_leaves_a_failure(
    server: PageServer, new_page: Callable[..., Any], watch: Any
) -> None:
    watch.allow(REFUSED)
    server.key = "secret-2"
    page = new_page()
    page.goto(server.url)
    page.wait_for_selector("#key[open]")
    page.keyboard.press("Escape")
    turn = ask(page)
    page.wait_for_selector("#key[open]")
    page.get_by_role("button", name="Cancel").click()
    turn.locator(".failure").wait_for()
    assert "The server asks for an API key." in turn.locator(".failure").inner_text()


def test_a_restarted_turn_begins_anew(server: PageServer, page: Any) -> None:
    again = [EVENTS[0], {"type": "thinking", "text": "I was int"}, {"type": "restarted"}]
    server.replies.append(Reply([*again, *EVENTS[1:]]))
    turn = ask(page)
    turn.locator(".cost").wait_for()
    assert turn.locator(".thought").all_inner_texts() == ["I look it up."]


def test_an_invalid_plan_and_a_failed_search_are_shown_as_such(
    server: PageServer, page: Any
) -> None:
    bad = {"type": "plan", "round": 0, "valid": False, "problems": ["no nodes"], "nodes": []}
    bad |= {"edges": []}
    shifted = [e | {"round": 1} if "round" in e else e for e in EVENTS[2:5]]
    shifted[2] = shifted[2] | {"error": "timed out after 10 s", "passages": []}
    server.replies.append(Reply([*EVENTS[:2], bad, *shifted, *EVENTS[5:]]))
    turn = ask(page)
    turn.locator(".cost").wait_for()
    assert turn.locator(".plan-problems").inner_text() == "The plan is not valid.\n\nno nodes"
    assert turn.locator(".state").all_text_contents() == ["1 found", "failed"]
    turn.locator(".node.failed").click()
    assert "The search failed: timed out after 10 s" in page.locator("#passages").inner_text()


def test_progress_is_announced_without_flooding(server: PageServer, page: Any) -> None:
    thoughts = [{"type": "thinking", "text": f"word {i} "} for i in range(300)]
    paced = [part for thought in thoughts for part in (thought, 0.005)]
    server.replies.append(Reply([EVENTS[0], *paced, *EVENTS[2:]]))
    page.evaluate(
        """() => { window.said = []; new MutationObserver(() => said.push(
        document.getElementById("progress").textContent)).observe(
        document.getElementById("progress"), {childList: true}); }"""
    )
    ask(page).locator(".cost").wait_for()
    said = page.evaluate("said")
    assert said[-1] == "Answer: Hanzur"
    assert len(said) <= 5


def test_a_long_thought_is_folded_when_it_is_over(server: PageServer, page: Any) -> None:
    thought = "I think. " * 500
    events = events_of(QUESTION, "Hanzur", {"A": [BOOK], "B": [PERSON]}, thought=thought.strip())
    gate = threading.Event()
    server.replies.append(Reply([*events[:2], gate, *events[2:]]))
    shown = ask(page).locator(".thought")
    shown.get_by_text("I think.").wait_for()
    assert len(shown.inner_text()) > 4000
    gate.set()
    shown.get_by_role("button", name="Show all 4,499 characters").click()
    assert len(shown.text_content()) > 4000


def test_the_focus_is_never_lost(server: PageServer, page: Any, watch: Any) -> None:
    watch.allow(REFUSED)
    gates = [threading.Event(), threading.Event()]
    server.replies += [Reply([EVENTS[0], gates[0], *EVENTS[1:]]), Reply(status=503), ANSWERED]
    focused = "document.activeElement.id || document.activeElement.className"
    page.fill("#question", QUESTION)
    page.locator("#send").focus()
    page.keyboard.press("Enter")
    page.locator("#stop").wait_for()
    assert page.evaluate(focused) == "stop"
    gates[0].set()
    page.locator(".cost").wait_for()
    assert page.evaluate(focused) == "turn"
    failure = ask(page).locator(".failure")
    assert page.evaluate(focused) == "question"
    failure.get_by_role("button", name="Try again").press("Enter")
    page.locator(".cost").nth(1).wait_for()
    assert page.evaluate(focused) == "turn"
