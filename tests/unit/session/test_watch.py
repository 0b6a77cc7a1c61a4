"""Stored answers, read from every kind of file and shown again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from stored_rows import prediction, rollout, store_evaluation, store_run

from rsearch_cli.errors import DataEmpty, DataMalformed, DataNotFound, RsearchError
from rsearch_cli.rollout.answer import save_answers
from rsearch_cli.rollout.events import event_as_json, replay_events
from rsearch_cli.session.screen import Screen
from rsearch_cli.session.stored import read_stored
from rsearch_cli.session.watch import watch
from rsearch_cli.types import FollowUp, Paragraph, SearchRound, Sentence


def write(path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def lines(tmp_path) -> str:
    return write(tmp_path / "trajectories.jsonl", *(rollout(question=f"q{i}") for i in range(5)))


def test_a_saved_session_comes_back_whole(make_answer, tmp_path):
    sentences = (
        Sentence("He was born in Dublin.", (1,)),
        Sentence("In 1847.", (), "it cites nothing", (7,)),
    )
    answers = [
        make_answer(),
        make_answer(answer=None, rounds=()),
        replace(
            make_answer(rounds=(SearchRound(None, ("line 2: no source",)),)),
            follow_up=FollowUp("And he?", "Where was Bram Stoker born?"),
            paragraph=Paragraph(sentences),
        ),
    ]
    path = tmp_path / "session.json"
    assert save_answers(path, answers) is None
    found = [stored.answer.as_json() for stored in read_stored(str(path))]
    assert [one["question"] for one in found] == [answer.question for answer in answers]
    for one, answer in zip(found, answers, strict=True):
        for name in ("answer", "plans", "paragraph", "asked_as", "stop", "seconds", "citations"):
            assert one[name] == answer.as_json()[name], name
    (second,) = read_stored(f"{path}:2")
    assert second.answer.answer is None


@pytest.mark.stack
def test_the_answer_of_the_nano_model_is_shown_as_it_was(quickstart, tmp_path, capsys):
    import rsearch_cli

    with rsearch_cli.Agent.from_pretrained(recipe=quickstart) as agent:
        screen = Screen()
        question = agent.examples[0]
        answer = agent.ask(question, screen)
        screen.finish(answer)
    live = capsys.readouterr().out
    (stored,) = read_stored(write(tmp_path / "answer.json", answer.as_json()))
    watch([stored], Screen())
    assert capsys.readouterr().out == f"> {question}\n{live}"
    assert stored.answer.as_json() == answer.as_json()


def test_a_trajectory_is_shown_with_its_reward(lines, capsys):
    watch(read_stored(lines), Screen())
    assert capsys.readouterr().out == (
        "> Where was q0 born?\n"
        "thinking  I look it up.\n"
        "plan\n"
        "  A: Ada born (General)\n"
        "  └─ B: mayor (News)\n"
        "results\n"
        "  A: Ada: born in Rome.\n"
        "  A: Rome is old.\n"
        "  B: nothing found\n"
        "answer  Rome [1][2]\n"
        "  [1] Ada: born in Rome. (p1)\n"
        "  [2] Rome is old. (p2)\n"
        "2 searches, 35 tokens\n"
        "step 1, reward 1.00 (answer 1.00, plan 1.00, format 1.00)\n"
    )


def test_a_prediction_is_shown_with_its_scores(tmp_path, capsys):
    watch(read_stored(str(store_evaluation(tmp_path / "e", [prediction()]))), Screen())
    shown = capsys.readouterr().out
    assert shown.startswith(
        "> Where was q1 born?\nthinking  I look.\nplan\n  A: Ada born (General)"
    )
    assert "answer  Rome [1][2]\n" in shown
    assert shown.endswith("2 searches, 35 tokens\nexact match 1, F1 1.00 (method rsearch)\n")


def test_plans_are_read_by_the_rules_of_their_own_run(tmp_path):
    folder = store_run(tmp_path / "run", after_greedy=[prediction()])
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "protocol: {sources: {General: a}}\n")
    (stored,) = read_stored(str(folder / "predictions/after-greedy.jsonl"))
    assert "source 'News' is not General" in stored.answer.trajectory.rounds[0].problems[0]


def test_a_policy_that_failed_is_shown_as_failed(tmp_path, capsys):
    row = prediction(answer=None, transcript="", inserted=[], searches=0, failure="no reply\x1b[2J")
    watch(read_stored(write(tmp_path / "p.jsonl", row)), Screen())
    shown = capsys.readouterr().out
    assert shown == "> Where was q1 born?\nfailed: no reply�[2J\nnot counted (method rsearch)\n"


def asked(place: str, question: str | None = None) -> list[str]:
    return [stored.answer.question for stored in read_stored(place, question)]


def test_a_row_is_picked_by_its_line_or_its_question(lines, tmp_path):
    assert asked(lines) == ["Where was q0 born?"]
    assert asked(f"{lines}:4") == ["Where was q3 born?"]
    assert asked(lines, "WAS q2") == ["Where was q2 born?"]
    assert asked(str(tmp_path)) == ["Where was q0 born?"]
    assert asked(f"{tmp_path}:2") == ["Where was q1 born?"]


@pytest.mark.parametrize(
    ("content", "place", "error", "message"),
    [
        (None, "a.jsonl", DataNotFound, "a.jsonl cannot be read: No such file"),
        (None, "a.jsonl:3", DataNotFound, "a.jsonl cannot be read: No such file"),
        (None, "", DataNotFound, "holds no trajectories.jsonl and no predictions.jsonl"),
        ("", "a.jsonl", DataEmpty, "a.jsonl holds no answers"),
        ("[]", "a.json", DataEmpty, "a.json holds no answers"),
        ("{}\n", "a.jsonl:2", DataNotFound, "a.jsonl has no line 2"),
        ("{}", "a.json:2", DataNotFound, "a.json has no answer 2"),
        ("{}\n", "a.jsonl:0", DataNotFound, "a.jsonl has no line 0"),
        ("no", "a.jsonl", DataMalformed, "a.jsonl, line 1: not JSON"),
        ("\x00\xff", "a.json", DataMalformed, "a.json is not JSON"),
        ("[" * 100_000, "a.json", DataMalformed, "a.json is not JSON"),
        ("[1]", "a.json", DataMalformed, "a.json, answer 1: no answer, trajectory or prediction"),
        ("{}\n", "a.jsonl", DataMalformed, "a.jsonl, line 1: no answer, trajectory or prediction"),
        ('{"segments": 1}\n', "a.jsonl", DataMalformed, "line 1: no answer, trajectory"),
        ('{"transcript": 1}\n', "a.jsonl", DataMalformed, "line 1: no answer, trajectory"),
        ('{"plans": [1]}', "a.json", DataMalformed, "answer 1: no answer, trajectory"),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, place, error, message):
    if content is not None:
        (tmp_path / place.partition(":")[0]).write_text(content, encoding="latin-1")
    with pytest.raises(error) as told:
        read_stored(str(tmp_path / place))
    assert message in str(told.value) and "\n" not in str(told.value)
    assert isinstance(told.value, RsearchError)


def test_a_question_that_is_not_there_is_one_line(lines):
    with pytest.raises(DataNotFound, match="no question contains 'Oslo'"):
        read_stored(lines, "Oslo")


HOSTILE = "\x1b[2J<script>\u202e" + "a " * 50_000


def test_hostile_text_stays_text(make_answer, tmp_path, capsys):
    row = make_answer().as_json()
    plan = row["plans"][0]
    plan["results"][0]["passages"][0] |= {"title": HOSTILE, "text": HOSTILE, "id": HOSTILE}
    plan["nodes"][0]["query"] = HOSTILE
    row |= {"question": HOSTILE, "answer": f"x {HOSTILE}", "thinking": [HOSTILE]}
    watch(read_stored(write(tmp_path / "a.json", row)), Screen())
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "<script>" in shown


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [["A", "B"], ["B", "A"]]},
        {"edges": [["A", "Z"]]},
        {"results": [{"node": "Z", "expansion": [], "error": None, "cached": 0, "passages": []}]},
        {"nodes": [{"label": 1, "query": "q", "source": "s"}]},
    ],
)
def test_plans_that_are_none_are_refused(make_answer, tmp_path, change):
    row = make_answer().as_json()
    row["plans"][0] |= change
    with pytest.raises(DataMalformed, match="answer 1: no answer, trajectory or prediction"):
        read_stored(write(tmp_path / "a.json", row))


def test_the_pace_is_that_of_a_quick_model(lines, tmp_path):
    pauses: list[float] = []
    watch(read_stored(lines), Screen(), pauses.append)
    assert 1.0 < sum(pauses) < 4.0
    row = rollout()
    row["segments"][0]["text"] = f"<think> {'word ' * 10_000}</think> " + row["segments"][0]["text"]
    pauses.clear()
    watch(read_stored(write(tmp_path / "long.jsonl", row)), Screen(), pauses.append)
    assert sum(pauses) < 12.0


def test_events_can_be_replayed_from_a_stored_answer(make_answer, tmp_path):
    answer = make_answer()
    (stored,) = read_stored(write(tmp_path / "a.json", answer.as_json()))
    told = [event_as_json(event) for event in replay_events(stored.answer)]
    kinds = [event["type"] for event in told]
    assert kinds == ["asked", "thinking", "plan", "result", "result", "answer", "finished"]
