from __future__ import annotations

from collections import Counter

import pytest
from search_double import SearchDouble

from rsearch_cli.errors import DataEmpty
from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.training.traces import (
    IGNORED,
    Trace,
    TraceStats,
    Unfit,
    encode_trace,
    encode_traces,
)
from rsearch_cli.types import NodeResult, Passage, Question, Segment

QUESTION = Question("q", "Where was Ada born?", ("Rome",))
PLAN = "Nodes:\nA: Ada born (General)\nEdges:"
WRITTEN = f"<think> I look up one fact. </think>\n<search>\n{PLAN}\n</search>"
BLOCK = "\n<result>\nA: Ada was born in Rome.\n</result>\n"
ANSWER = "<answer> Rome </answer>"


def trace_of(*texts: str) -> Trace:
    authors = ("model", "system", "model")
    return Trace(QUESTION, tuple(Segment(t, (), a) for t, a in zip(texts, authors, strict=False)))


def learnt_text(example, policy) -> str:
    return policy.decode([label for label in example.labels if label != IGNORED])


def masked_text(example, policy) -> str:
    pairs = zip(example.ids, example.labels, strict=True)
    return policy.decode([i for i, label in pairs if label == IGNORED])


def test_only_what_the_model_wrote_is_learnt(nano_policy, quickstart):
    example = encode_trace(trace_of(WRITTEN, BLOCK, ANSWER), nano_policy, quickstart)
    assert learnt_text(example, nano_policy) == WRITTEN + ANSWER + "<|end|>"
    assert masked_text(example, nano_policy) == "<|user|> Where was Ada born?<|assistant|>" + BLOCK
    assert example.trained_tokens == sum(label != IGNORED for label in example.labels)
    assert all(label in (i, IGNORED) for i, label in zip(example.ids, example.labels, strict=True))


def test_a_trace_has_the_ids_of_the_rollout_that_it_tells(nano_policy, quickstart):
    class Found(SearchDouble):
        def execute(self, plans, on_result=None):
            passage = Passage("1", "Ada", "Ada was born in Rome.")
            return [tuple(NodeResult(n, passages=(passage,)) for n in p.nodes) for p in plans]

    rolled = Rollout(nano_policy, Found(), quickstart).run([QUESTION], GREEDY)[0]
    assert rolled.stop == "answer"
    trace = Trace(QUESTION, tuple(Segment(s.text, (), s.author) for s in rolled.segments))
    example = encode_trace(trace, nano_policy, quickstart)
    assert list(example.ids) == [*rolled.prompt_ids, *rolled.completion_ids]
    mask = [0] * len(rolled.prompt_ids) + rolled.model_mask
    # The end, which stops the model in other runtimes, is learnt too.
    assert [label != IGNORED for label in example.labels] == [bool(m) for m in [*mask[:-1], 1]]


def test_a_thought_that_the_prompt_opens_is_not_written_twice(nano_policy, quickstart):
    rollout = quickstart.rollout.model_copy(update={"open_thought": True})
    recipe = quickstart.model_copy(update={"rollout": rollout})
    example = encode_trace(trace_of(WRITTEN, BLOCK, ANSWER), nano_policy, recipe)
    assert nano_policy.decode(example.ids).count("<think>") == 1
    assert learnt_text(example, nano_policy).startswith(" I look up one fact. </think>")
    with pytest.raises(Unfit, match="that do not start with the <think> of the prompt"):
        encode_trace(trace_of("I look.", BLOCK, ANSWER), nano_policy, recipe)


def test_results_of_another_model_bring_no_control_token_in(nano_policy, quickstart):
    block = "\n<r>\nA: Ada <|end|> was <answer>Rome</answer>\n</r>\n"
    example = encode_trace(trace_of(WRITTEN, block, ANSWER), nano_policy, quickstart)
    assert example.ids.count(nano_policy.eos_id) == 1
    inserted = masked_text(example, nano_policy)
    assert "\n<result>\nA: Ada ‹|end|› was ‹answer›Rome‹/answer›\n</result>\n" in inserted


@pytest.mark.parametrize(
    ("written", "changes", "reason"),
    [
        (WRITTEN + "<|end|>", {}, "with control tokens in the model's text"),
        (WRITTEN, {"policy": {"max_seq_length": 20}}, "longer than policy.max_seq_length"),
        (WRITTEN, {"rollout": {"max_new_tokens": 20}}, "longer than rollout.max_new_tokens"),
    ],
    ids=["control", "sequence", "completion"],
)
def test_what_the_policy_could_not_have_written_is_left_out(
    nano_policy, quickstart, written, changes, reason
):
    sections = {
        name: getattr(quickstart, name).model_copy(update=values)
        for name, values in changes.items()
    }
    recipe = quickstart.model_copy(update=sections)
    good = trace_of("<think> </think>", "\n", "<answer> x </answer>")
    stats = TraceStats(2)
    if changes:
        with pytest.raises(Unfit, match=reason):
            encode_trace(trace_of(written, BLOCK, ANSWER), nano_policy, recipe)
        return
    encoded = encode_traces([trace_of(written, BLOCK, ANSWER), good], nano_policy, recipe, stats)
    assert [trace for trace, _ in encoded] == [good]
    assert stats == TraceStats(1, Counter({reason: 1}))


def test_no_trace_left_is_an_error_with_the_reasons(nano_policy, quickstart):
    stats = TraceStats(1, Counter({"with a wrong answer": 3}))
    with pytest.raises(DataEmpty) as caught:
        encode_traces([trace_of("<|end|>", BLOCK, ANSWER)], nano_policy, quickstart, stats)
    assert str(caught.value) == (
        "sft.traces world: no trace is left to train on (0 of 4 traces accepted; rejected: "
        "3 with a wrong answer, 1 with control tokens in the model's text)"
    )


def test_a_trace_survives_its_row():
    trace = trace_of(WRITTEN, BLOCK, ANSWER)
    assert Trace.from_row(trace.as_row()) == trace
    assert trace.written == WRITTEN + ANSWER


def test_a_trace_without_an_answer_learns_to_stop_after_the_results(nano_policy, quickstart):
    example = encode_trace(trace_of(WRITTEN, BLOCK), nano_policy, quickstart)
    assert learnt_text(example, nano_policy) == WRITTEN + "<|end|>"
    whole = encode_trace(trace_of(WRITTEN, BLOCK, ANSWER), nano_policy, quickstart)
    assert whole.ids[: len(example.ids) - 1] == example.ids[:-1]
