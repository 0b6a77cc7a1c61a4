"""`rsearch infer` in a real terminal, against a real server: what a person sees and can do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Fault, Faults
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files

pytest.importorskip("pty", reason="a pseudo-terminal: there is none on this system")
pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is a dependency, not installed here")
from pty_terminal import CONTROL_C, CONTROL_D, ENTER, Terminal

PROMPT = "\n>"
QUESTION = "What is the number of city 3?"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(write_as_agent) as server:
        yield server
        server.hold_after = None


@pytest.fixture
def open_terminal(server: ChatServer, repository: Path, tmp_path: Path) -> Callable[..., Terminal]:
    """A session with the scripted agent behind the server, or another one."""
    _, corpus = write_files(tmp_path, 20)
    settings = [*SETTINGS, f"search.sources.General.corpus={corpus}"]
    environment = {
        **os.environ,
        "OPENAI_API_KEY": API_KEY,
        "RSEARCH_CACHE_DIR": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }

    def open_(*settings_besides: str, endpoint: str = "", question: str = "") -> Terminal:
        options = ["--recipe", "hotpot-offline", "--endpoint", endpoint or server.base_url]
        for setting in (*settings, *settings_besides):
            options += ["--set", setting]
        command = [sys.executable, "-m", "rsearch_cli", "infer", *options]
        return Terminal([*command, *([question] if question else [])], environment)

    return open_


def test_what_is_written_is_seen_while_it_is_written(server, open_terminal):
    server.hold_after = 3
    with open_terminal() as terminal:
        terminal.wait_for("help or /quit.")
        terminal.wait_for(PROMPT)
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("thinking  I look")
        assert "up city 3" not in terminal.text  # the server has not sent it yet
        server.hold_after = None
        assert "answer" not in terminal.wait_for("plan\n  A: number of city 3 (General)")
        terminal.wait_for("A: City 3 — It has the number Nr 51.")
        terminal.wait_for("answer  Nr 51 [1]")
        terminal.wait_for("[1] City 3 (3)")
        terminal.wait_for(PROMPT)
        assert "\x1b[2mI" in terminal.raw  # dimmed
        terminal.type(CONTROL_D)
        assert terminal.wait_until_left() == 0


def test_control_c_stops_the_answer_and_not_the_session(server, open_terminal):
    server.hold_after = 3
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("thinking  I look")
        terminal.type(CONTROL_C)
        terminal.wait_for("stopped")
        server.hold_after = None
        terminal.wait_for(PROMPT)
        terminal.type("What is the number of city 4?" + ENTER)
        terminal.wait_for("answer  Nr 68 [1]")
        terminal.wait_for(PROMPT)
        terminal.type("half a question" + CONTROL_C)
        terminal.wait_for(PROMPT)
        terminal.type(CONTROL_C)
        terminal.wait_for("press Ctrl-C again")
        terminal.wait_for(PROMPT)
        terminal.type(CONTROL_C)
        assert terminal.wait_until_left() == 0


def test_ten_thousand_pasted_characters_are_one_question(server, open_terminal):
    filler = "".join(f"Fact {i} is of no use.\n" for i in range(1000))[: 10_000 - len(QUESTION)]
    with open_terminal("policy.max_seq_length=8192") as terminal:
        terminal.wait_for(PROMPT)
        tried = len(server.requests)
        terminal.paste(filler + QUESTION)
        terminal.type(ENTER)
        terminal.wait_for("answer  Nr 51 [1]", 120)
    asked = server.requests[tried].body["messages"][-1]["content"]
    assert asked == " ".join((filler + QUESTION).split())
    assert len(server.requests) == tried + 2


def test_a_plan_that_cannot_be_read_is_told_and_there_is_an_answer(server, open_terminal):
    def gossip(body):
        if any("plan not valid" in m["content"] for m in body["messages"]):
            return "<answer> unknown </answer>"
        return "<search>\nNodes:\nA: number (\x1b[31mGossip)\nEdges:\n</search>"

    server.grade = gossip
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(QUESTION + ENTER)
        said = terminal.wait_for("; the agent answers from what it has")
        assert "plan not valid: line 2: source" in said and "Gossip" in said
        terminal.wait_for("answer  unknown")
        terminal.wait_for("0 searches")
        assert "\x1b[31mGossip" not in terminal.raw


@pytest.mark.parametrize(("status", "code"), [("dead", 43), ("refused", 41)])
def test_a_server_that_does_not_answer_is_one_line_before_the_session(
    server, open_terminal, status, code
):
    endpoint = "http://127.0.0.1:9/v1" if status == "dead" else ""
    server._api_key = "another"
    words = "no connection to the policy" if status == "dead" else "the key in OPENAI_API_KEY"
    with open_terminal("policy.endpoint.service.retries=0", endpoint=endpoint) as terminal:
        terminal.wait_for("rsearch: ")
        terminal.wait_for(words)
        assert terminal.wait_until_left() == code
        assert "Traceback" not in terminal.text and PROMPT not in terminal.text


@pytest.mark.parametrize("status", ["broken", "refused"])
def test_a_server_that_answers_no_more_is_one_line_and_the_session_goes_on(
    server, open_terminal, status
):
    words = "answered 500" if status == "broken" else "the key in OPENAI_API_KEY"
    with open_terminal("policy.endpoint.service.retries=0") as terminal:
        terminal.wait_for(PROMPT)
        if status == "broken":
            server.faults = Faults([Fault.SERVER_ERROR])
        else:
            server._api_key = "another"
        for _ in range(2):
            terminal.type(QUESTION + ENTER)
            terminal.wait_for("rsearch: ")
            terminal.wait_for(words)
            terminal.wait_for(PROMPT)
        assert "Traceback" not in terminal.text
        terminal.type("/quit" + ENTER)
        assert terminal.wait_until_left() == 0


def test_what_was_asked_comes_back_in_the_next_session(open_terminal, tmp_path):
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/save " + str(tmp_path / "s.json") + ENTER)
        terminal.wait_for("no question has been answered yet")
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("answer  Nr 51")
        terminal.wait_for(PROMPT)
        terminal.type("/quit" + ENTER)
        assert terminal.wait_until_left() == 0
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[A\x1b[A" + ENTER)  # two entries back
        terminal.wait_for("answer  Nr 51")
        terminal.wait_for(PROMPT)
        terminal.type("/save " + str(tmp_path / "s.json") + ENTER)
        terminal.wait_for("saved 1 answer")
    (saved,) = json.loads((tmp_path / "s.json").read_text())
    assert (saved["question"], saved["answer"]) == (QUESTION, "Nr 51")


def test_control_c_ends_a_single_question_with_its_own_code(server, open_terminal):
    server.hold_after = 3
    with open_terminal(question=QUESTION) as terminal:
        terminal.wait_for("thinking  I look")
        terminal.type(CONTROL_C)
        terminal.wait_for("rsearch: interrupted")
        assert terminal.wait_until_left() == 130
