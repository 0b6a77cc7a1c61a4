"""The page of `rsearch serve` in Chromium, with the built-in model behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from openai_chat import API_KEY, ChatServer
from served_agent import ServedAgent, serve_agent

QUESTION = "Who founded Nasvan Press?"
ANSWER = "Klisus Nasgal"
TWO_HOPS = "Where was the author of The Gorpus Lantern born?"
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def page(served_agent: ServedAgent, new_page: Callable[..., Any]) -> Any:
    page = new_page()
    page.goto(served_agent.url)
    page.wait_for_selector("#examples button")
    return page


def ask(page: Any, question: str) -> Any:
    """Ask and wait for the end; returns the turn."""
    before = page.locator(".turn").count()
    page.fill("#question", question)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").nth(before)
    turn.locator(".cost, .failure").first.wait_for()
    page.wait_for_selector("#send")
    return turn


def test_a_question_is_answered_with_thought_plan_and_source(page: Any) -> None:
    turn = ask(page, QUESTION)
    assert turn.locator(".question").inner_text() == QUESTION
    assert turn.locator(".thought").inner_text() == "I look up one fact."
    assert turn.locator(".plan-graph .node.found .state").text_content() == "1 found"
    assert turn.locator(".answer .foreign").inner_text() == ANSWER
    assert turn.locator(".sources .title").inner_text() == "Nasvan Press"
    assert re.fullmatch(r"1 search · \d+\.\d s", turn.locator(".cost").inner_text())
    assert page.locator("#progress").text_content() == f"Answer: {ANSWER}"


def test_a_citation_opens_its_passage_and_marks_the_answer(page: Any) -> None:
    turn = ask(page, QUESTION)
    turn.locator(".cite").click()
    panel = page.locator("#passages")
    assert panel.locator("h3").inner_text() == "Nasvan Press"
    assert panel.locator(".foreign").inner_text() == f"Nasvan Press was founded by {ANSWER}."
    assert panel.locator("mark").all_inner_texts() == [ANSWER]
    page.keyboard.press("Escape")
    assert panel.is_hidden()
    assert page.evaluate("document.activeElement.className") == "cite"


def test_a_node_opens_what_it_found(page: Any) -> None:
    ask(page, QUESTION).locator(".plan-graph .node").click()
    panel = page.locator("#passages")
    assert panel.locator("h2").inner_text() == "A: Nasvan Press founded"
    assert panel.locator(".passage").count() == 1
    assert "Source General" in panel.inner_text()


def test_an_example_is_asked_with_a_click(page: Any) -> None:
    example = page.locator("#examples button").first
    text = example.inner_text()
    example.click()
    page.wait_for_selector(".cost")
    assert page.locator(".question").inner_text() == text
    assert page.locator("#welcome").is_hidden()


def test_a_conversation_survives_a_reload_and_is_reopened_from_the_history(page: Any) -> None:
    ask(page, QUESTION)
    ask(page, TWO_HOPS)
    shown = page.locator("#turns").inner_text()
    page.reload()
    page.wait_for_selector(".cost")
    assert page.locator("#turns").inner_text() == shown
    page.click("#new")
    assert page.locator(".turn").count() == 0
    page.click("#open-history")
    assert page.locator("#conversations .title").all_inner_texts() == [QUESTION]
    page.click("#conversations .reopen")
    assert page.locator("#turns").inner_text() == shown
    page.locator(".cite").first.click()
    assert page.locator("#passages mark").first.inner_text() == ANSWER


def test_conversations_are_deleted(page: Any) -> None:
    for question in (QUESTION, TWO_HOPS):
        page.click("#new")
        ask(page, question)
    page.click("#open-history")
    page.get_by_role("button", name=f"Delete {QUESTION}").click()
    assert page.locator("#conversations .title").all_inner_texts() == [TWO_HOPS]
    assert page.locator(".turn").count() == 1
    page.click("#delete-all")
    assert page.locator("#conversations").inner_text() == "Nothing yet."
    assert page.evaluate("localStorage.getItem('rsearch.conversations')") is None
    page.keyboard.press("Escape")
    assert page.locator(".turn").count() == 0


def test_answers_are_copied_as_text_and_as_markdown(
    served_agent: ServedAgent, new_page: Callable[..., Any]
) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(served_agent.url)
    turn = ask(page, QUESTION)
    turn.get_by_role("button", name="Copy", exact=True).click()
    turn.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == ANSWER
    turn.get_by_role("button", name="Copy as Markdown").click()
    turn.get_by_role("button", name="Copied").nth(1).wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"## {QUESTION}\n\n{ANSWER} \\[1\\]\n\n1. Nasvan Press\n"


def test_the_colours_follow_the_system_or_the_switch(
    served_agent: ServedAgent, new_page: Callable[..., Any]
) -> None:
    page = new_page(color_scheme="dark")
    page.goto(served_agent.url)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == light
    page.click("#theme")
    assert page.evaluate(background) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == dark
    page.click("#theme")
    assert page.evaluate(background) == light


def test_the_keyboard_alone_is_enough(page: Any) -> None:
    page.keyboard.type(QUESTION)
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("And where?")
    assert page.input_value("#question") == f"{QUESTION}\nAnd where?"
    for _ in range(len("\nAnd where?")):
        page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    page.wait_for_selector(".cost")
    reached = []
    page.locator(".skip").focus()
    while len(reached) < 30:
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => { const e = document.activeElement; return [e.id || e.className.baseVal ||
            e.className || e.tagName, getComputedStyle(e).outlineStyle !== "none" ||
            e.id === "question"]; }"""
        )
        if focused[0] == "BODY":  # left the page
            break
        reached.append(focused[0])
        assert focused[1], f"{focused[0]} does not show that it has the focus"
    wanted = {"new", "open-history", "theme", "open-help", "node found", "cite"}
    assert wanted | {"question", "style", "follow-up", "send"} <= set(reached)
    page.locator(".cite").focus()
    page.keyboard.press("Enter")
    assert page.locator("#passages").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert "New line in the question" in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.type("?")
    assert page.locator("#help").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1200, "height": 800}, PHONE], ids=["wide", "phone"])
def test_accessible_and_within_the_width(
    served_agent: ServedAgent,
    new_page: Callable[..., Any],
    check_axe: Callable[[Any], None],
    fits_width: Callable[[Any], None],
    viewport: dict[str, int],
    scheme: str,
) -> None:
    page = new_page(viewport=viewport, color_scheme=scheme)
    page.goto(served_agent.url)
    page.wait_for_selector("#examples button")
    check_axe(page)
    ask(page, TWO_HOPS)
    check_axe(page)
    fits_width(page)
    page.locator(".plan-graph .node").first.click()
    check_axe(page)
    fits_width(page)
    page.keyboard.press("Escape")
    for button in ("#open-history", "#open-help"):
        page.click(button)
        check_axe(page)
        fits_width(page)
        page.keyboard.press("Escape")


def test_the_request_is_the_one_of_openai(page: Any) -> None:
    with page.expect_request("**/v1/chat/completions") as first:
        ask(page, QUESTION)
    with page.expect_request("**/v1/chat/completions") as second:
        ask(page, "Where is it based?")
    page.uncheck("#follow-up")
    with page.expect_request("**/v1/chat/completions") as third:
        ask(page, TWO_HOPS)
    sent = [json.loads(one.value.post_data) for one in (first, second, third)]
    assert sent[0]["model"] == "builtin:nano"
    assert sent[0]["stream"] is True
    contents = [[message["content"] for message in body["messages"]] for body in sent]
    assert contents == [
        [QUESTION],
        [QUESTION, ANSWER, "Where is it based?"],
        [TWO_HOPS],
    ]
    assert [body["rsearch"]["follow_up"] for body in sent] == [True, True, False]


def test_follow_ups_and_long_answers_come_from_the_writer(new_page: Callable[..., Any]) -> None:
    rewritten = "Where was Klisus Nasgal born?"
    paragraph = "Nasvan Press was founded by Klisus Nasgal [1]. He was a famous sailor [1]."

    def write(body: Any) -> str:
        return paragraph if "Write a paragraph" in str(body["messages"]) else rewritten

    with ChatServer(grade=write) as writer:
        endpoint = f"--set=dialogue.endpoint.url={writer.base_url}"
        settings = ("--set=dialogue.writer=endpoint", endpoint)
        with serve_agent(*settings, environment={"OPENAI_API_KEY": API_KEY}) as served:
            page = new_page()
            page.goto(served.url)
            page.select_option("#style", "paragraph")
            turn = ask(page, QUESTION)
            sentences = turn.locator(".paragraph .sentence").all_inner_texts()
            assert sentences == [
                f"Nasvan Press was founded by {ANSWER}.",
                "He was a famous sailor.",
            ]
            assert turn.locator(".unsupported").inner_text() == "He was a famous sailor."
            page.select_option("#style", "short")
            second = ask(page, "Where was he born?")
            assert second.locator(".asked-as").inner_text() == f"Asked as: {rewritten}"
            page.uncheck("#follow-up")
            assert ask(page, rewritten).locator(".asked-as").is_hidden()


def test_a_model_without_a_writer_says_so(page: Any) -> None:
    ask(page, QUESTION)
    page.select_option("#style", "paragraph")
    turn = ask(page, "Where was he born?")
    assert turn.locator(".asked-as").inner_text().startswith("Asked as typed: ")
    assert turn.locator(".paragraph-note").inner_text().startswith("No paragraph: ")


def test_stop_frees_the_place_on_the_server(served_agent: ServedAgent, page: Any) -> None:
    """Others keep the server busy, so that there is time to stop."""
    cancelled = 'rsearch_questions_total{outcome="cancelled"}'
    before = served_agent.metric(cancelled)
    body = {"model": "builtin:nano", "messages": [{"role": "user", "content": TWO_HOPS}]}
    post = partial(httpx.post, f"{served_agent.url}/v1/chat/completions", trust_env=False)
    with ThreadPoolExecutor(60) as pool:
        others = [pool.submit(post, json=body, timeout=120) for _ in range(60)]
        page.fill("#question", QUESTION)
        page.keyboard.press("Enter")
        page.locator(".working").get_by_text("Waiting for the agent").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Ask again").wait_for()
        assert {other.result().status_code for other in others} == {200}
    served_agent.wait_until_idle()
    assert served_agent.metric(cancelled) == before + 1
