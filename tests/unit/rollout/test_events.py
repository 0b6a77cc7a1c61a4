"""A rollout as a series of events: live, replayed, and as JSON."""

from __future__ import annotations

import pytest

from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import (
    AnswerText,
    Asked,
    EventWriter,
    Finished,
    PlanWritten,
    Restarted,
    ResultArrived,
    Thinking,
    event_as_json,
    replay_events,
)
from rsearch_cli.rollout.rollout import Rollout


@pytest.fixture(scope="module")
def told_and_answer(quickstart, nano, executor, world):
    told = []
    writer = EventWriter(told.append)
    question = world.load("test", 1)[0]
    trajectory = Rollout(nano, executor, quickstart, writer).run([question], GREEDY)[0]
    writer.end_turn()
    return told, AgentAnswer(trajectory, quickstart, 0.5, 0.0)


def join(events, kind):
    return "".join(event.text for event in events if isinstance(event, kind))


def test_the_events_of_a_rollout_say_what_its_answer_says(told_and_answer):
    told, answer = told_and_answer
    assert join(told, Thinking) == "\n\n".join(answer.thoughts)
    assert join(told, AnswerText) == answer.answer
    assert len([e for e in told if isinstance(e, Thinking)]) > 3, "it should arrive in parts"
    (plan,) = [e for e in told if isinstance(e, PlanWritten)]
    assert (plan.round, plan.plan, plan.problems) == (0, answer.plan, ())
    arrived = [e for e in told if isinstance(e, ResultArrived)]
    assert tuple(e.result for e in arrived) == answer.trajectory.rounds[0].results
    kinds = [type(event) for event in told]
    assert kinds.index(PlanWritten) < kinds.index(ResultArrived) < kinds.index(AnswerText)


def test_a_stored_answer_replays_what_was_told_live(told_and_answer):
    told, answer = told_and_answer
    asked, *replayed, finished = replay_events(answer)
    assert (asked, finished) == (Asked(answer.question), Finished(answer))
    for kind in (Thinking, AnswerText):
        assert join(replayed, kind) == join(told, kind)
    others = (PlanWritten, ResultArrived)
    assert [e for e in replayed if isinstance(e, others)] == [
        e for e in told if isinstance(e, others)
    ]
    assert list(replay_events(answer.trajectory)) == [asked, *replayed]


def test_json_has_the_fields_of_an_answer(told_and_answer):
    _, answer = told_and_answer
    whole = answer.as_json()
    (plan,) = whole["plans"]
    found = [event_as_json(event) for event in replay_events(answer)]
    assert found[0] == {
        "type": "asked",
        "question": answer.question,
        "asked_as": None,
        "note": None,
    }
    (written,) = [e for e in found if e["type"] == "plan"]
    assert written == {"type": "plan", "round": 0} | {k: plan[k] for k in plan if k != "results"}
    results = [e for e in found if e["type"] == "result"]
    assert results == [{"type": "result", "round": 0} | result for result in plan["results"]]
    assert found[-1] == {"type": "finished"} | whole
    assert event_as_json(Restarted()) == {"type": "restarted"}


def write(*texts):
    told = []
    writer = EventWriter(told.append)
    for text in texts:
        writer.on_text(text)
    writer.end_turn()
    return told


def test_a_reply_that_begins_anew_is_told():
    told = write("<think> I was", "<think> Anew </think>")
    assert told == [Thinking("I was"), Restarted(), Thinking("\n\nAnew")]


def test_a_thought_that_a_template_opened_goes_on():
    told = write(
        "First I loo", "First I look. </thi", "<think>First I look. </think>\n<answer> Rome"
    )
    assert told == [Thinking("First I loo"), Thinking("k."), AnswerText("Rome")]


def test_text_outside_of_blocks_is_no_answer():
    assert write("I cannot tell. ") == [Thinking("I cannot tell.")]


def test_a_plan_is_told_once_it_is_read(quickstart):
    told = []
    writer = EventWriter(told.append)
    text = "Nodes:\nA: no source"
    writer.on_text(f"<think> a </think>\n<search>\n{text}\n</search>")
    reading = read_plan(text, quickstart.protocol)
    writer.on_plan(reading)
    assert told == [Thinking("a"), PlanWritten(0, reading.plan, reading.problems)]
