"""How much a completion repeats itself: healthy ones not at all, collapsed ones nearly wholly."""

from __future__ import annotations

import pytest

from rsearch_cli.protocol.repetition import repeated_ngrams, repeated_tags
from rsearch_cli.types import Segment

THOUGHT = "Who wrote Emma is not asked; which town the author was born in is."
HEALTHY = (
    Segment(f"<think> {THOUGHT} </think><search>\nNodes:\nA: Emma author (General)\n", (), "model"),
    Segment("Edges:\n</search>", (), "model"),
    Segment("<result> a b c d a b c d a b c d <think><think> </result>", (), "system"),
    Segment("<think> Jane Austen, of Steventon. </think><answer> Steventon </answer>", (), "model"),
)


def model(text: str) -> list[Segment]:
    return [Segment(text, (), "model")]


def test_two_turns_repeat_nothing_and_results_do_not_count() -> None:
    assert repeated_tags("", HEALTHY) == 0.0
    assert repeated_ngrams("", HEALTHY) == 0.0


@pytest.mark.parametrize(
    ("opening", "text", "rate"),
    [
        ("", "<think><think><think>", 2 / 3),
        ("<think>", "<think> a </think>", 1 / 3),
        ("", "<think> a </think><think> b </think>", 0.5),
        ("", "<think></Think >< think><search>", 1 / 4),
        ("", "no tag at all", 0.0),
        ("", "", 0.0),
    ],
)
def test_a_tag_that_was_already_written_in_the_turn_is_repeated(
    opening: str, text: str, rate: float
) -> None:
    assert repeated_tags(opening, model(text)) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("opening", "text", "rate"),
    [
        ("", "<think> a b c d a b c d </think>", 1 / 5),
        ("<think>", "so so so so so so so so so so so so so", 0.9),
        ("<think>\n", "A b c d</think><think>a B c d", 0.5),
        ("<think>", "我要找作者我要找作者</think>", 2 / 7),
        ("", "a a a a a a a a <answer> b b b b b b b </answer>", 0.0),
        ("", "<think> a b c </think>", 0.0),
        ("", "<think>", 0.0),
    ],
)
def test_four_words_in_a_thought_that_came_before_are_repeated(
    opening: str, text: str, rate: float
) -> None:
    assert repeated_ngrams(opening, model(text)) == pytest.approx(rate)
