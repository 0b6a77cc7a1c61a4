"""`rsearch infer` in a real terminal, against a real server: what a person sees and can do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Fault, Faults
from openai_chat import API_KEY, ChatServer
from openai_policy import SETTINGS, write_as_agent, write_files
from stored_rows import rollout

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

    def open_(
        *settings_besides: str, endpoint: str = "", question: str = "", script: str = ""
    ) -> Terminal:
        options = ["--recipe", "hotpot-offline", "--endpoint", endpoint or server.base_url]
        for setting in (*settings, *settings_besides):
            options += ["--set", setting]
        command = [sys.executable, "-m", "rsearch_cli", "infer", *options]
        command += [question] if question else []
        return Terminal(["sh", "-c", script, "sh", *command] if script else command, environment)

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


def test_a_follow_up_is_shown_as_it_is_asked_and_its_rewriting_can_be_stopped(
    server, open_terminal
):
    def act(body):
        if "Follow-up question:" in body["messages"][-1]["content"]:
            return "What is the number of city 4?"
        return write_as_agent(body)

    server.grade = act
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("answer  Nr 51 [1]")
        terminal.wait_for(PROMPT)
        server.hold_after = 2
        sent = len(server.requests)
        terminal.type("And that of city 4?" + ENTER)
        while len(server.requests) == sent:
            time.sleep(0.05)
        terminal.type(CONTROL_C)
        terminal.wait_for("stopped")
        server.hold_after = None
        terminal.wait_for(PROMPT)
        terminal.type("And that of city 4?" + ENTER)
        terminal.wait_for("asked as  What is the number of city 4?")
        terminal.wait_for("answer  Nr 68 [1]")
        terminal.wait_for(PROMPT)
        terminal.type("/new" + ENTER)
        terminal.wait_for("new conversation")
        terminal.wait_for(PROMPT)
        sent = len(server.requests)
        terminal.type("What is the number of city 6?" + ENTER)
        terminal.wait_for("answer  Nr 102 [1]")
        assert len(server.requests) == sent + 2


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


SHELL = 'trap : INT; stty -g; "$@"; echo "code $?"; stty -g; read -r line; echo "read $line"'
"""A shell that runs the command as `"$@"`, shows the terminal's settings and reads a line."""


def find_settings(terminal: Terminal) -> list[str]:
    """What `stty -g` has shown."""
    return re.findall(r"\b[0-9a-f]+(?::[0-9a-f]+){9,}", terminal.text)


def require_unchanged_settings(terminal: Terminal) -> None:
    """Check that `stty -g` has shown the same settings before and after the command."""
    terminal.type(ENTER)
    terminal.wait_for("read ")
    before, after = find_settings(terminal)
    assert before == after


def find_child(terminal: Terminal) -> int:
    """The process that the shell of a terminal runs."""
    number = terminal.process.pid
    return int(Path(f"/proc/{number}/task/{number}/children").read_text().split()[0])


def test_what_is_typed_during_an_answer_is_kept_for_the_next_prompt(server, open_terminal):
    server.hold_after = 3
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("thinking  I look")
        terminal.type("What is the number of city X?\x7f\x7f4?" + ENTER + "/pl")
        time.sleep(0.3)
        server.hold_after = None
        shown = terminal.wait_for("answer  Nr 51 [1]")
        assert "number of city X" not in shown and "/pl" not in shown
        shown = terminal.wait_for("answer  Nr 68 [1]")
        assert "What is the number of city 4?" in shown
        terminal.wait_for("/pl")
        terminal.type("an" + ENTER)
        terminal.wait_for("A: number of city 4 (General)")


def test_control_c_discards_what_was_typed(server, open_terminal):
    server.hold_after = 3
    with open_terminal() as terminal:
        terminal.wait_for(PROMPT)
        terminal.type(QUESTION + ENTER)
        terminal.wait_for("thinking  I look")
        terminal.type("rubbish" + CONTROL_C)
        terminal.wait_for("stopped")
        server.hold_after = None
        terminal.wait_for(PROMPT)
        terminal.type("/quit" + ENTER)
        assert terminal.wait_until_left() == 0
        assert "rubbish" not in terminal.text


def test_what_is_left_of_the_input_goes_to_the_shell(server, open_terminal):
    server.hold_after = 3
    with open_terminal(question=QUESTION, script=SHELL) as terminal:
        terminal.wait_for("thinking  I look")
        terminal.type("ls -l" + ENTER)
        server.hold_after = None
        assert "ls -l" not in terminal.wait_for("code 0")
        terminal.wait_for("read ls -l")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("when", ["asked", "at the prompt", "loading"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_the_terminal_as_it_was(server, open_terminal, when, number, code):
    server.hold_after = 0 if when == "loading" else 3
    question = QUESTION if when == "asked" else ""
    with open_terminal(question=question, script=SHELL) as terminal:
        terminal.wait_for("opening the search sources")
        if when == "asked":
            terminal.wait_for("thinking  I look")
        elif when == "loading":
            time.sleep(0.5)
        else:
            server.hold_after = None
            terminal.wait_for(PROMPT)
        os.kill(find_child(terminal), number)
        terminal.wait_for("rsearch: stopped by ")
        terminal.wait_for(f"code {code}")
        require_unchanged_settings(terminal)


def test_an_unexpected_error_leaves_the_terminal_as_it_was(server, open_terminal, tmp_path):
    """A bug that shows while a question is being answered."""
    (tmp_path / "sitecustomize.py").write_text(
        "from rsearch_cli.session.screen import Screen\nScreen.on_plan = None\n"
    )
    script = f"PYTHONPATH={tmp_path}:$PYTHONPATH; {SHELL}"
    with open_terminal(question=QUESTION, script=script) as terminal:
        terminal.wait_for("opening the search sources")
        terminal.wait_for("rsearch: unexpected error: TypeError")
        terminal.wait_for("code 1")
        require_unchanged_settings(terminal)


def test_a_stored_answer_is_replayed_at_a_pace_that_can_be_read(tmp_path):
    row = rollout()
    row["segments"][0]["text"] = f"<think>{' word' * 200} </think>" + row["segments"][0]["text"]
    path = tmp_path / "trajectories.jsonl"
    path.write_text(json.dumps(row) + "\n")
    command = [sys.executable, "-m", "rsearch_cli", "infer", "--watch", str(path)]
    with Terminal(["sh", "-c", SHELL, "sh", *command], dict(os.environ)) as terminal:
        terminal.wait_for("thinking  word word")
        assert "plan" not in terminal.text
        terminal.wait_for("answer  Rome [1][2]")
        terminal.wait_for("step 1, reward 1.00")
        terminal.wait_for("code 0")
        require_unchanged_settings(terminal)
    with Terminal(["sh", "-c", SHELL, "sh", *command], dict(os.environ)) as terminal:
        terminal.wait_for("thinking  word word")
        terminal.type(CONTROL_C)
        terminal.wait_for("rsearch: interrupted")
        terminal.wait_for("code 130")
        assert "plan" not in terminal.text
        require_unchanged_settings(terminal)


@pytest.mark.skipif(not shutil.which("bash"), reason="job control: there is no bash")
def test_a_session_can_be_stopped_and_goes_on_in_either_place(tmp_path):
    row = rollout()
    row["segments"][0]["text"] = f"<think>{' word' * 300} </think>" + row["segments"][0]["text"]
    path = tmp_path / "trajectories.jsonl"
    path.write_text(json.dumps(row) + "\n")
    watch = f"{sys.executable} -m rsearch_cli infer --watch {path}"
    environment = {**os.environ, "PS1": "$ ", "HISTFILE": "/dev/null"}
    with Terminal(["bash", "--norc", "--noediting", "-i"], environment) as terminal:
        terminal.type("stty -g; " + watch + "\n")
        terminal.wait_for("thinking  word word")
        terminal.type("\x1a")  # Ctrl-Z
        terminal.wait_for("Stopped")
        terminal.type("fg\n")
        terminal.wait_for("word word")
        terminal.type("echo typed\n")
        assert "typed" not in terminal.wait_for("step 1, reward")
        terminal.wait_for("typed")
        terminal.type("stty -g; echo done\n")
        terminal.wait_for("\ndone")
        before, after = find_settings(terminal)
        assert before == after
        # In the background, it changes nothing about the terminal, for which it would be stopped.
        terminal.type(f"{watch} & wait; stty -g; echo done\n")
        terminal.wait_for("step 1, reward")
        terminal.wait_for("\ndone")
        *_, after = find_settings(terminal)
        assert before == after
