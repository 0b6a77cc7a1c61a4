"""An answer as JSON and Markdown, and its way into a file."""

from __future__ import annotations

import json

import pytest

from rsearch_cli.rollout.answer import save_answers
from rsearch_cli.types import NodeResult, SearchRound


def test_json_holds_everything(make_answer):
    told = json.loads(json.dumps(make_answer().as_json()))
    assert told["question"] == "Where was the author of *Dracula* born?"
    assert told["thinking"] == ["First [who]."]
    (plan,) = told["plans"]
    assert (plan["valid"], plan["problems"], plan["edges"]) == (True, [], [["A", "B"]])
    assert plan["nodes"][0] == {"label": "A", "query": "author of Dracula", "source": "General"}
    first, second = plan["results"]
    assert (first["node"], first["expansion"], first["cached"]) == ("A", [], False)
    assert (second["expansion"], second["cached"], second["error"]) == (["Bram Stoker"], True, None)
    assert [p["id"] for p in second["passages"]] == ["https://x.org/s", "n"]
    assert told["citations"][0] == {
        "number": 1,
        "id": "https://x.org/s",
        "title": "Bram Stoker",
        "url": "https://x.org/s",
        "nodes": ["B"],
        "holds_answer": True,
        "text": "Irish author, born in Dublin.",
    }
    assert told["citations"][1]["nodes"] == ["A", "B"]
    figures = ("answer", "stop", "searches", "failed_searches", "tokens", "seconds", "usd")
    assert [told[f] for f in figures] == ["Dublin", "answer", 2, 0, 4, 1.25, 0.0]


def test_markdown_takes_foreign_text_literally(make_answer):
    text = make_answer().as_markdown()
    assert text.startswith("## Where was the author of \\*Dracula\\* born?\n\n> First \\[who\\].\n")
    assert "    A: author of Dracula (General)\n" in text
    assert "**Dublin** \\[1\\]\n\n1. Bram Stoker (https://x.org/s)\n2. Dracula (n)\n" in text
    assert text.endswith("2 searches, 4 tokens, 1.2 s\n")


def test_markdown_tells_what_went_wrong(make_answer):
    result = make_answer().trajectory.rounds[0].results[0]
    failed = NodeResult(result.node, error="server\nbusy")
    rounds = (SearchRound(None, ("no <nodes>",)), SearchRound(None, ("x",), (failed,)))
    text = make_answer(None, rounds=rounds).as_markdown()
    assert "Plan not valid: no \\<nodes\\>" in text
    assert "- A: search failed (server busy)" in text
    assert "\n\nNo answer.\n\n1 search (1 failed), 4 tokens" in text


def test_saving_replaces_the_file_as_a_whole(make_answer, tmp_path):
    path = tmp_path / "s.json"
    assert save_answers(path, [make_answer()]) is None
    assert save_answers(path, [make_answer(), make_answer(None)]) is None
    assert [e["answer"] for e in json.loads(path.read_text())] == ["Dublin", None]
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]
    assert save_answers(tmp_path / "s.md", [make_answer()]) is None
    assert (tmp_path / "s.md").read_text() == make_answer().as_markdown()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s.txt", "s.txt: the name must end in .json or .md"),
        ("none/s.json", "none/s.json cannot be written: No such file or directory"),
        ("file/s.md", "file/s.md cannot be written: Not a directory"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(make_answer, tmp_path, name, reason):
    (tmp_path / "file").write_text("mine")
    problem = save_answers(tmp_path / name, [make_answer()])
    assert problem is not None and problem.endswith(reason)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
