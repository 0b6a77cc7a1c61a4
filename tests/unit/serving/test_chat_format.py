from __future__ import annotations

from typing import Any, Literal

import pytest

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.rollout.answer import AgentAnswer
from rsearch_cli.rollout.events import AnswerText, Asked, Event, Finished, Restarted, Thinking
from rsearch_cli.serving.chat_format import ChatWriter, ChunkWriter
from rsearch_cli.types import Question, Segment, Trajectory

RECIPE = load_recipe("quickstart").recipe


def answered(text: str | None, stop: Literal["answer", "length"] = "answer") -> AgentAnswer:
    """An answer without searches: a prompt of 3 tokens, 2 that were written, 2 inserted."""
    written = "x" if text is None else f"<answer> {text} </answer>"
    segments = (Segment(written, (1, 2), "model"), Segment("", (3, 4), "system"))
    question = Question("asked", "Who?", ())
    trajectory = Trajectory(question, (7, 8, 9), "", segments, (), text, stop)
    return AgentAnswer(trajectory, RECIPE, 1.0, 0.0)


def content(*events: Event) -> tuple[str, bool]:
    """The text that a client shows after these events, and whether it is contradicted."""
    writer = ChunkWriter(ChatWriter("agent"))
    chunks = [writer.write(event) for event in events]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    return "".join(delta.get("content", "") for delta in deltas), writer.contradicted


@pytest.mark.parametrize(
    ("events", "text", "contradicted"),
    [
        ([AnswerText("Ann"), AnswerText(" Orr"), Finished(answered("Ann Orr"))], "Ann Orr", False),
        ([Finished(answered("Ann Orr"))], "Ann Orr", False),
        ([AnswerText("Ann"), Finished(answered("Ann Orr"))], "Ann Orr", False),
        ([AnswerText("Ann"), Finished(answered(None))], "Ann", False),
        (
            [AnswerText("Ann"), Restarted(), AnswerText("A"), AnswerText("nn Orr")],
            "Ann Orr",
            False,
        ),
        (
            [AnswerText("Ann"), Restarted(), AnswerText("Bo"), Finished(answered("Bob"))],
            "Ann",
            True,
        ),
        ([AnswerText("Ann Orr"), Restarted(), Finished(answered("Ann"))], "Ann Orr", True),
        (
            [AnswerText("Ann Orr"), Restarted(), AnswerText("Ann"), Finished(answered("Ann"))],
            "Ann Orr",
            True,
        ),
        ([AnswerText("Ann"), Restarted(), Finished(answered("Bob"))], "Ann", True),
        ([AnswerText("Ann"), Restarted(), Finished(answered(""))], "Ann", True),
        ([AnswerText("Ann"), Restarted(), Finished(answered(None))], "Ann", False),
    ],
)
def test_the_text_of_the_answer(events: list[Event], text: str, contradicted: bool) -> None:
    assert content(Asked("Who?"), Thinking("Hm."), *events) == (text, contradicted)


def test_an_answer_that_was_cut_off_has_the_reason_length() -> None:
    writer = ChatWriter("agent")
    whole: Any = writer.whole(answered(None, stop="length"))
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["message"]["content"] == ""
    chunk = ChunkWriter(writer).write(Finished(answered(None, stop="length")))
    assert chunk["choices"][0]["finish_reason"] == "length"


def test_usage_counts_what_was_read_and_written() -> None:
    usage = ChatWriter("agent").whole(answered("Ann"))["usage"]
    assert usage == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
