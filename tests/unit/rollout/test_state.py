"""Micro-batches: how many drafts are generated at once."""

from __future__ import annotations

from collections import deque

import pytest

from rsearch_cli.policy.generation import Prompt
from rsearch_cli.rollout.state import MicroBatch, RolloutState, count_fitting
from rsearch_cli.types import Question, Segment


def states(*prompts: int, budget: int = 100) -> deque[RolloutState]:
    question = Question("q", "Which river?", ("Tiber",))
    return deque(RolloutState(question, Prompt((), (1,) * length), budget) for length in prompts)


@pytest.mark.parametrize(
    ("prompts", "rows", "tokens", "count"),
    [
        ((100, 100, 100), 2, None, 2),
        ((100, 100, 100), 8, None, 3),
        ((100, 100, 100), 8, 600, 3),
        ((100, 100, 100), 8, 599, 2),
        ((100, 100, 100), 1, 9999, 1),
        # Short rows are padded to the longest one: three of 400 come to 1200.
        ((50, 50, 300), 8, 1199, 2),
        ((50, 50, 300), 8, 1200, 3),
        ((900, 10), 8, 300, 1),
    ],
)
def test_rows_and_tokens_bound_a_micro_batch(prompts, rows, tokens, count):
    assert count_fitting(states(*prompts), rows, tokens) == count


def test_what_was_written_counts_towards_the_tokens():
    rows = states(100, 100)
    rows[0].segments.append(Segment("", (5,) * 50, "model"))
    assert count_fitting(rows, 8, 400) == 1
    assert count_fitting(rows, 8, 500) == 2


def test_a_finished_draft_is_not_active():
    one, other = states(10, 10)
    one.stop = "eos"
    assert MicroBatch([one, other]).active == [other]
