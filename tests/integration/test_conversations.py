"""Conversations with the nano model: follow-ups rewritten by a real server, and long answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from operator import eq
from pathlib import Path
from typing import Any

import pytest
from backend import BACKEND
from dialogues import Dialogue, make_dialogues, rewrite
from faults import Fault, Faults
from openai_chat import API_KEY, ChatServer, Said, user_message
from openai_policy import SETTINGS, write_as_agent, write_files
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.dialogue.condense import condense
from rsearch_cli.dialogue.writers import EndpointWriter, PolicyWriter
from rsearch_cli.questions.world import open_world
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.services.runtime import Services
from rsearch_cli.types import FollowUp, Turn
from rsearch_cli.workflows.ask import Agent

DIALOGUES = 30
FAST = (
    "dialogue.endpoint.service.requests_per_second=10000",
    "dialogue.endpoint.service.max_backoff_seconds=0",
)
NANO = (f"policy.backend={BACKEND}", *FAST)
PASSAGE = re.compile(r"^\[(\d+)\] (?:[^:]*: )?(.*)$", re.MULTILINE)
TURN = Turn("Who founded Vosbe Press?", "Nanpon Drahos")
ASKED = "Where was he born?"


@pytest.fixture(scope="module")
def running() -> Iterator[ChatServer]:
    with ChatServer(rewrite, retry_after="0") as server:
        yield server


@pytest.fixture
def writer(running: ChatServer) -> Iterator[ChatServer]:
    """The writer's server; `grade` and `faults` may be changed."""
    running.requests.clear()
    yield running
    running.grade, running.faults = rewrite, Faults()


@pytest.fixture(scope="module")
def agent(running: ChatServer) -> Iterator[Agent]:
    """The nano model with a writer."""
    address = f"dialogue.endpoint.url={running.base_url}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", API_KEY)
        agent = Agent.from_pretrained("builtin:nano", overrides=[*NANO, address])
    with agent:
        yield agent


@pytest.fixture(scope="module")
def alone() -> Iterator[Agent]:
    """The nano model without a writer."""
    with Agent.from_pretrained("builtin:nano", overrides=NANO) as agent:
        yield agent


@pytest.fixture
def ask(
    writer: ChatServer, open_services_of: Callable[[Recipe], Services]
) -> Callable[..., FollowUp]:
    """Rewrites one question with fresh services, on an agent's recipe with settings on top."""

    def ask_(*settings: str, services: Services | None = None, asked: str = ASKED) -> FollowUp:
        address = f"dialogue.endpoint.url={writer.base_url}"
        recipe = load_recipe("quickstart", (*FAST, address, *settings)).recipe
        opened = EndpointWriter(recipe.dialogue, services or open_services_of(recipe))
        try:
            return condense(opened, [TURN], asked, 600, "")
        finally:
            opened.close()

    return ask_


@pytest.fixture(scope="module")
def dialogues(alone: Agent) -> list[Dialogue]:
    return make_dialogues(open_world(alone.recipe.questions, 0), "test", DIALOGUES, seed=1)


def test_follow_ups_are_asked_as_they_are_meant_and_answered(
    agent: Agent, alone: Agent, dialogues: list[Dialogue], writer: ChatServer
) -> None:
    answers: list[str | None] = []
    meant: list[str] = []
    for dialogue in dialogues:
        conversation = agent.start_conversation()
        first = conversation.ask(dialogue.first.text)
        assert first.follow_up == FollowUp(dialogue.first.text)
        asked: list[FollowUp] = []
        second = conversation.ask(dialogue.follow_up, on_asked=asked.append)
        # By the model's own answer, where that is not the world's.
        meant.append(dialogue.meant.replace(dialogue.first.answers[0], first.answer or ""))
        assert asked == [second.follow_up] == [FollowUp(dialogue.follow_up, meant[-1])]
        assert second.question == dialogue.follow_up
        assert second.trajectory.question.text == meant[-1]
        answers.append(second.answer)
    assert len(dialogues) == DIALOGUES == len(writer.requests)
    assert answers == [answer.answer for answer in alone.ask_many(meant)]
    # The model is imperfect, and no worse for having been asked in two turns.
    in_full = alone.ask_many([dialogue.meant for dialogue in dialogues])
    gold = [dialogue.answer for dialogue in dialogues]
    right = sum(map(eq, answers, gold))
    assert right >= 15 and right >= sum(map(eq, [a.answer for a in in_full], gold)) - 3


def test_without_a_writer_every_follow_up_is_asked_as_typed_and_says_so(
    alone: Agent, dialogues: list[Dialogue]
) -> None:
    why = (
        "asked as typed: this model can only search; set dialogue.endpoint.url to an "
        "OpenAI-compatible server that can"
    )
    for dialogue in dialogues:
        turn = Turn(dialogue.first.text, dialogue.first.answers[0])
        asked = alone.condense([turn], dialogue.follow_up)
        assert asked == FollowUp(dialogue.follow_up, note=why)
        assert alone.condense([turn], dialogue.meant) == FollowUp(dialogue.meant)
    conversation = alone.start_conversation()
    conversation.ask("Who founded Vosbe Press?")
    second = conversation.ask(ASKED)
    assert second.trajectory.question.text == ASKED and second.as_json()["note"] == why


def test_the_nano_model_made_to_write_is_caught(alone: Agent, dialogues: list[Dialogue]) -> None:
    recipe = load_recipe("quickstart", ["dialogue.max_output_tokens=64"]).recipe
    writer = PolicyWriter(alone.policy, recipe)
    for dialogue in dialogues[:5]:
        turn = Turn(dialogue.first.text, dialogue.first.answers[0])
        asked = condense(writer, [turn], dialogue.follow_up, 100, "")
        assert asked.asked_as is None and asked.note is not None
        assert asked.note.startswith("asked as typed: ")


def test_a_policy_on_a_server_rewrites_for_itself(tmp_path: Path) -> None:
    def act(body: dict[str, Any]) -> Said | str:
        if "Follow-up question:" in user_message(body):
            return "What is the number of city 4?"
        return write_as_agent(body)

    _, corpus = write_files(tmp_path, 20)
    with ChatServer(act) as server:
        agent = Agent.from_pretrained(
            recipe="hotpot-offline",
            endpoint=server.base_url,
            overrides=[*SETTINGS, f"search.sources.General.corpus={corpus}"],
        )
        with agent:
            assert agent.describe_follow_ups().startswith("A follow-up question is rewritten by")
            conversation = agent.start_conversation()
            conversation.ask("What is the number of city 3?")
            second = conversation.ask("And that of city 4?")
    assert (second.asked_as, second.answer) == ("What is the number of city 4?", "Nr 68")


def test_the_session_shows_it_starts_afresh_and_can_be_told_not_to(
    writer: ChatServer, tmp_path: Path
) -> None:
    def talk(*options: str) -> str:
        settings = [*NANO, f"dialogue.endpoint.url={writer.base_url}"]
        arguments = [word for setting in settings for word in ("--set", setting)]
        typed = f"Who founded Vosbe Press?\nWhere was he born?\n/save {tmp_path}/s.json\n/new\n"
        result = CliRunner().invoke(
            app, ["infer", *arguments, *options], input=f"{typed}Who wrote it?\n"
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    out = talk()
    assert out.count("asked as") == 1
    assert "\nasked as  Where was Nanpon Drahos born?\nthinking  " in out
    saved = json.loads((tmp_path / "s.json").read_text())[1]
    assert (saved["question"], saved["asked_as"], saved["note"]) == (
        "Where was he born?",
        "Where was Nanpon Drahos born?",
        None,
    )
    (tmp_path / "s.json").unlink()
    sent = len(writer.requests)
    assert "asked as" not in talk("--no-follow-up")
    assert len(writer.requests) == sent


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RATE_LIMIT, Fault.SERVER_ERROR, Fault.HTML])
def test_a_server_that_fails_is_shown_to_have_failed(
    ask: Callable[..., FollowUp], writer: ChatServer, fault: Fault
) -> None:
    writer.faults = Faults([fault])
    asked = ask()
    assert asked.asked == ASKED and asked.note is not None
    assert asked.note.startswith("asked as typed: rewriting the question failed (")
    assert "(tried 2 times)" in asked.note and "\n" not in asked.note


def test_a_passing_fault_is_retried_and_an_equal_question_is_cached(
    ask: Callable[..., FollowUp],
    writer: ChatServer,
    open_services_of: Callable[[Recipe], Services],
) -> None:
    writer.faults = Faults([Fault.SERVER_ERROR], first=1)
    services = open_services_of(load_recipe("quickstart").recipe)
    for _ in range(2):
        assert ask(services=services).asked_as == "Where was Nanpon Drahos born?"
    spent = services.budget.snapshot()
    assert len(writer.requests) == 2
    assert spent.services["dialogue"].hits == 1 and 0 < spent.total.usd < 0.01


def test_what_is_refused_is_not_cached(ask: Callable[..., FollowUp], writer: ChatServer) -> None:
    writer.grade = lambda body: "Nanpon Drahos was born in Rome."
    assert "it is not a question" in str(ask().note)
    writer.grade = rewrite
    assert ask().asked_as == "Where was Nanpon Drahos born?"


@pytest.mark.parametrize(
    ("setting", "reason", "sent"),
    [
        ("budget.max_usd=0", "budget", 0),
        ("cache.mode=offline", "cache.mode is offline", 0),
        ("dialogue.max_output_tokens=16", "cut off after 16 tokens", 1),
    ],
)
def test_limits_are_kept_and_named(
    ask: Callable[..., FollowUp], writer: ChatServer, setting: str, reason: str, sent: int
) -> None:
    writer.grade = lambda body: Said("Where", "length")
    asked = ask(setting)
    assert asked.asked_as is None and reason in str(asked.note)
    assert len(writer.requests) == sent


def test_the_key_is_sent_and_no_key_is_shown(
    ask: Callable[..., FollowUp],
    writer: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    assert ask().asked_as
    assert writer.requests[0].headers["authorization"] == f"Bearer {API_KEY}"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-of-the-test")
    note = str(ask(asked="And where was he born?").note)
    assert "OPENAI_API_KEY" in note
    assert "sk-wrong-key" not in note + caplog.text


@pytest.mark.parametrize("reply", ["x" * 1_000_000, "\x1b[31m\u202e" * 1000, "<search>", "\ud800"])
def test_a_hostile_reply_is_refused_in_one_short_line(
    ask: Callable[..., FollowUp], writer: ChatServer, reply: str
) -> None:
    writer.grade = lambda body: reply
    asked = ask()
    assert asked.asked_as is None and asked.note is not None
    assert len(asked.note) < 300 and asked.note.isprintable()


def test_a_paragraph_is_checked_sentence_by_sentence(agent: Agent, writer: ChatServer) -> None:
    def write(body: dict[str, Any]) -> str:
        (number, text), *_ = PASSAGE.findall(user_message(body))
        return f"{text} [{number}] Zorbo lives there. [{number}] {text} [77]"

    writer.grade = write
    answer = agent.ask("Who founded Vosbe Press?", style="paragraph")
    assert answer.answer == "Nanpon Drahos" and answer.paragraph is not None
    told = answer.as_json()["paragraph"]
    assert told["note"] is None
    assert [s["supported"] for s in told["sentences"]] == [True, False, False]
    assert [s["problem"] for s in told["sentences"]][1:] == [
        "the passages do not contain zorbo",
        "it cites no passage",
    ]
    assert [s["dropped"] for s in told["sentences"]] == [[], [], [77]]
    assert answer.text.startswith(
        "Nanpon Drahos\n\nVosbe Press was founded by Nanpon Drahos. [1] Z"
    )
    assert "\\[unsupported\\]" in answer.as_markdown()


def test_without_a_writer_there_is_the_short_answer_and_the_reason() -> None:
    options = ["--style", "paragraph", "--json", "--set", f"policy.backend={BACKEND}"]
    result = CliRunner().invoke(app, ["infer", "Who founded Vosbe Press?", *options])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["answer"] == "Nanpon Drahos"
    assert told["paragraph"] == {
        "sentences": [],
        "note": "no paragraph: this model can only search; set dialogue.endpoint.url to an "
        "OpenAI-compatible server that can",
    }
