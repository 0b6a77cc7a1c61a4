"""A session: what is a command, what is a question, and that nothing ends it but leaving."""

from __future__ import annotations

import io
import json

import pytest

from rsearch_cli.errors import BudgetExceeded, PolicyError
from rsearch_cli.session.input import PipeInput, open_input
from rsearch_cli.session.repl import COMMANDS, Session
from rsearch_cli.session.screen import Screen
from rsearch_cli.terminal import printable
from rsearch_cli.types import FollowUp, Paragraph, Sentence

pytestmark = pytest.mark.usefixtures("messages_on_stderr")


class Answering:
    """Answers everything with the same answer, and fails when it is told to."""

    name = "builtin:nano"
    examples = ("Who wrote it?",)

    def __init__(self, answer) -> None:
        self.answer = answer
        self.recipe = answer.recipe
        self.asked: list[str] = []
        self.conversations = 0

    def start_conversation(self):
        self.conversations += 1
        return self

    def write_paragraph(self, answer):
        return Paragraph((Sentence("Stoker was born in Dublin.", (1,)),))

    def describe_follow_ups(self):
        return "Follow-ups are understood."

    def ask(self, text, observer=None, *, on_asked=None):
        self.asked.append(text)
        on_asked(FOLLOW_UPS.get(text, FollowUp(text)))
        observer.on_text("<answer> Dub")
        if text in FAILURES:
            raise FAILURES[text]
        observer.on_text("<answer> Dublin </answer>")
        return self.answer


FOLLOW_UPS = {
    "And his?": FollowUp("And his?", "What is \x1b[1mStoker's?"),
    "And hers?": FollowUp("And hers?", note="asked as typed: \x1b[1mno server"),
}
FAILURES = {
    "broke?": BudgetExceeded("no \x1b[1mmoney"),
    "long?": PolicyError("too long"),
    "slow?": KeyboardInterrupt(),
}


class Lines:
    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    def read(self):
        return self.lines.pop(0) if self.lines else None


@pytest.fixture
def talk(make_answer, capsys):
    """Runs a session over the lines; gives what was asked, stdout and stderr."""

    def run(*lines: str):
        agent = Answering(make_answer())
        Session(agent, Screen()).run(Lines(*lines))
        captured = capsys.readouterr()
        return agent.asked, captured.out.split("\n", 2)[-1], captured.err

    return run


def test_it_begins_with_who_answers_and_what_to_ask(make_answer, capsys):
    Session(Answering(make_answer()), Screen()).run(Lines())
    assert capsys.readouterr().out == (
        "builtin:nano, searching General, News, Academy. Type a question, /help or /quit.\n"
        "Its sources cover a fictional world only. For example, ask: Who wrote it?\n"
    )


def test_questions_are_asked_one_by_one_and_stripped(talk):
    asked, out, _ = talk("  Who?\n", "", "   \n", "/etc/hosts is what?", "two\nlines?")
    assert asked == ["Who?", "/etc/hosts is what?", "two\nlines?"]
    assert out.count("answer  Dublin [1]\n") == 3


@pytest.mark.parametrize(
    ("question", "line"),
    [("broke?", "rsearch: no \ufffd[1mmoney\n"), ("long?", "rsearch: too long\n")],
)
def test_an_error_is_one_line_and_the_session_goes_on(talk, question, line):
    asked, out, err = talk(question, "Who?")
    assert (asked, err) == ([question, "Who?"], line)
    assert out.startswith("answer  Dub\nanswer  Dublin [1]\n")


def test_control_c_ends_the_question_alone(talk):
    asked, out, err = talk("slow?", "Who?", "/plan")
    assert asked == ["slow?", "Who?"]
    assert out.startswith("answer  Dub\nstopped\nanswer  Dublin [1]\n") and err == ""


def test_a_bug_is_not_hidden(talk, monkeypatch):
    monkeypatch.setitem(FAILURES, "bug?", ZeroDivisionError("x"))
    with pytest.raises(ZeroDivisionError):
        talk("bug?")


@pytest.mark.parametrize("command", ["/sources", "/plan", "/trace", "/paragraph", "/save x.json"])
def test_before_the_first_answer_there_is_nothing_to_tell(talk, command):
    assert talk(command)[1] == "no question has been answered yet\n"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("/soruces", "unknown command /soruces; did you mean /sources?\n"),
        ("/xyz", "unknown command /xyz; /help lists all commands\n"),
        ("/", "unknown command /; /help lists all commands\n"),
    ],
)
def test_an_unknown_command_names_the_nearest(talk, command, line):
    assert talk(command)[1] == line


def test_commands_tell_about_the_last_answer(talk):
    def told(command):
        return talk("Who?", command)[1].partition("1.2 s\n")[2]

    assert told("/sources") == (
        "[1] Bram Stoker (https://x.org/s)\n    Irish author, born in Dublin.\n"
        "[2] Dracula (n)\n    A novel by Bram Stoker.\n"
    )
    assert told("/plan") == "A: author of Dracula (General)\n└─ B: author birthplace (General)\n"
    trace = told("/trace")
    assert trace.startswith("model  │ <think> First [who]. </think>\nmodel  │ <search>\n")
    assert "system │ A: x\n" in trace and trace.endswith("model  │ <answer> Dublin </answer>\n")


def test_help_has_a_line_for_every_command(talk):
    lines = talk("/help")[1].splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == [f"/{n}" for n in COMMANDS]
    assert all(len(line.split()) > 1 for line in lines)


def test_how_a_follow_up_is_asked_is_shown(talk):
    _, out, _ = talk("Who?", "And his?", "And hers?")
    assert out.count("asked") == 2
    assert "\nasked as  What is \ufffd[1mStoker's?\nanswer  Dublin [1]\n" in out
    assert "\nasked as typed: \ufffd[1mno server\nanswer  Dublin [1]\n" in out


def test_a_new_conversation_starts_and_answers_are_kept(make_answer, capsys):
    agent = Answering(make_answer())
    Session(agent, Screen()).run(Lines("Who?", "/new", "/plan"))
    assert agent.conversations == 2
    out = capsys.readouterr().out
    assert "\nnew conversation\nA: author of Dracula (General)\n" in out


def test_a_long_answer_is_written_on_demand_and_saved(talk, tmp_path):
    path = tmp_path / "s.json"
    _, out, _ = talk("Who?", "/paragraph", f"/save {path}")
    assert "\nin full  Stoker was born in Dublin. [1]\nsaved 1 answer" in out
    (saved,) = json.loads(path.read_text())
    assert saved["paragraph"]["sentences"][0]["numbers"] == [1]


def test_leaving_leaves(talk):
    assert talk("/quit", "Who?")[0] == []


def test_a_session_is_saved_again_and_again_but_over_nothing_else(talk, tmp_path):
    path, other = tmp_path / "s.json", tmp_path / "other.json"
    other.write_text("mine")
    _, out, _ = talk(
        "Who?", f"/save {path}", "Who?", f"/save  {path} ", f"/save {other}", "/save",
        f"/save {tmp_path}/s.txt",
    )  # fmt: skip
    assert f"saved 1 answer to {path}\n" in out and f"saved 2 answers to {path}\n" in out
    assert len(json.loads(path.read_text())) == 2
    assert f"{other} already exists; choose another name\n" in out and other.read_text() == "mine"
    assert "/save needs a file name: /save answers.json or /save answers.md\n" in out
    assert "s.txt: the name must end in .json or .md\n" in out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("~nosuchuser/b.json", "Could not determine home directory"),
        (f"{'x' * 300}.json", "File name too long"),
        ("a\0b.json", "embedded null byte"),
    ],
    ids=["no such user", "too long", "null"],
)
def test_a_name_that_no_file_can_have_is_said_and_the_session_goes_on(
    talk, tmp_path, monkeypatch, name, reason
):
    monkeypatch.chdir(tmp_path)
    asked, out, err = talk("Who?", f"/save {name}", "Why?")
    assert asked == ["Who?", "Why?"]
    assert f"{printable(name)} cannot be written: {reason}\n" in out and err == ""
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_every_line_is_an_entry(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\n\n/quit"))
    reader = open_input()
    assert isinstance(reader, PipeInput)
    assert [reader.read() for _ in range(4)] == ["Who?\n", "\n", "/quit", None]


def test_bytes_that_are_no_text_cost_nothing_but_themselves(monkeypatch):
    piped = io.TextIOWrapper(
        io.BytesIO(b"Who?\n\xff what\nWhy?"), encoding="utf-8", errors="strict"
    )
    monkeypatch.setattr("sys.stdin", piped)
    reader = open_input()
    assert [reader.read() for _ in range(4)] == ["Who?\n", "\ufffd what\n", "Why?", None]
