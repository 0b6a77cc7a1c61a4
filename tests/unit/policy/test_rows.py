"""Rows of one batch that differ: stop strings, limits, sampling, streams, and who gave up."""

from __future__ import annotations

import pytest
import torch

from rsearch_cli.policy.generation import GREEDY, Row, Sampling
from rsearch_cli.policy.row_sampling import RowSampling
from rsearch_cli.types import Question

STOPS = ["</search>"]


@pytest.fixture
def prompts(nano_policy, quickstart):
    from rsearch_cli.policy.prompts import render_question

    texts = ["Who founded Vosbe Press?", "Is Korvenna older than Vosbe Press?", "Who runs it?"]
    asked = [Question(str(i), text, ()) for i, text in enumerate(texts)]
    return [render_question(q, nano_policy, quickstart).token_ids for q in asked]


def test_each_row_has_its_own_stops_and_limit(nano_policy, prompts):
    alone = nano_policy.generate_ids(prompts[:1], STOPS, [60])
    thought = nano_policy.generate_ids(prompts[:1], ["</think>"], [60])
    short = nano_policy.generate_ids(prompts[:1], STOPS, [5])
    rows = [
        Row(prompts[0], STOPS, 60),
        Row(prompts[0], ["</think>"], 60),
        Row(prompts[0], STOPS, 5, is_cancelled=lambda: False),
    ]
    assert nano_policy.generate_rows(rows) == alone + thought + short


def test_a_greedy_row_beside_a_sampled_one_writes_what_it_writes_alone(nano_policy, prompts):
    alone = nano_policy.generate_ids(prompts[:1], STOPS, [60])[0]
    warm = Sampling(1.5, 0.9)
    rows = [Row(prompts[0], STOPS, 60, s) for s in (warm, GREEDY, warm, warm)]
    torch.manual_seed(3)
    written = nano_policy.generate_rows(rows)
    assert written[1] == alone
    assert len({generation.text for generation in written}) > 1


def test_scores_become_those_of_transformers_own_settings():
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    scores = torch.randn(3, 50)
    found = RowSampling([Sampling(0.7, 0.8), GREEDY, Sampling(2.0)])(None, scores)
    expected = TopPLogitsWarper(0.8)(None, TemperatureLogitsWarper(0.7)(None, scores))
    assert torch.equal(found[0], expected[0])
    assert found[1].isfinite().nonzero().tolist() == [[int(scores[1].argmax())]]
    assert torch.equal(found[2], scores[2] / 2.0)


def test_each_row_streams_its_own_text_and_nothing_behind_its_end(nano_policy, prompts):
    told: list[list[str]] = [[], [], []]
    limits = [60, 4, 60]
    rows = [
        Row(ids, STOPS, limit, on_text=texts.append, is_cancelled=lambda: False)
        for ids, limit, texts in zip(prompts, limits, told, strict=True)
    ]
    written = nano_policy.generate_rows(rows)
    assert [texts[-1] for texts in told] == [generation.text for generation in written]
    assert [len(texts) for texts in told] == [len(g.token_ids) for g in written]


def test_a_cancelled_row_ends_at_once_and_the_others_go_on(nano_policy, prompts):
    alone = nano_policy.generate_ids(prompts[:1], STOPS, [60])
    asked = []

    def is_cancelled():
        asked.append(True)
        return len(asked) == 3

    rows = [Row(prompts[0], STOPS, 60), Row(prompts[1], STOPS, 60, is_cancelled=is_cancelled)]
    assert nano_policy.generate_rows(rows)[:1] == alone
    assert len(asked) == 3
    only = [Row(prompts[0], STOPS, 60, is_cancelled=lambda: True)]
    passes = []
    forward = nano_policy.model.register_forward_hook(lambda *_: passes.append(True))
    try:
        nano_policy.generate_rows(only)
    finally:
        forward.remove()
    assert len(passes) <= 1
