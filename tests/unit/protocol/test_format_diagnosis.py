"""Why no answer keeps the format, and what is advised."""

from __future__ import annotations

import pytest

from rsearch_cli.protocol.format_diagnosis import Attempt, explain_format
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.types import Segment

PLAN = "<think> a </think>\n<search>\nNodes:\nA: b (General)\nEdges:\n</search>"
RESULT = Segment("\n<result>\nA: c\n</result>\n", (), "system")
ANSWER = "<answer> c </answer>"
LIMIT = 100


def attempt(*parts: str | Segment, tokens: int = 9, opening: str = "") -> Attempt:
    segments = [Segment(p, (), "model") if isinstance(p, str) else p for p in parts]
    return Attempt(opening, segments, tokens)


def explain(attempts, *settings, results=None, recipe="hotpot-offline"):
    chosen = load_recipe(recipe, (f"rollout.max_new_tokens={LIMIT}", *settings)).recipe
    return explain_format(attempts, chosen, results)


def test_one_answer_that_keeps_the_format_is_enough():
    good = attempt(PLAN, RESULT, ANSWER)
    assert explain([good, attempt(""), attempt("no")]) is None
    assert explain([]) is None
    headless = attempt(PLAN.removeprefix("<think>"), RESULT, ANSWER, opening="<think>")
    assert explain([headless]) is None


@pytest.mark.parametrize(
    ("attempts", "results", "words"),
    [
        ([attempt("")] * 2, None, "the model writes nothing; check its chat template"),
        ([attempt("")] * 2, "user_turn", "the server sends no text"),
        ([attempt("<think>")] * 2, "same_turn", "the server sends no text"),
        ([attempt("so it goes", tokens=LIMIT)] * 2, None, "raise rollout.max_new_tokens (now 100)"),
        ([attempt("<think> a </think><search> b")] * 2, "user_turn", "or the server's own limit"),
        ([attempt("<think> It is Rome.")] * 2, None, "answers end inside a block"),
        ([attempt("It is Rome.")] * 2, None, "there is no <search> block; the model does not"),
        ([attempt(PLAN, RESULT, "Rome")] * 2, "user_turn", "policy.endpoint.results=same_turn"),
        ([attempt(PLAN, RESULT, PLAN)] * 2, "same_turn", "policy.endpoint.results=user_turn"),
        (
            [attempt(PLAN.removeprefix("<think> a </think>\n"), RESULT, ANSWER)] * 2,
            "user_turn",
            "no <think> block; try --set rollout.open_thought=true, or have the server return",
        ),
        (
            [attempt(PLAN, RESULT, ANSWER, ", I think")] * 2,
            None,
            "most break the rule 'one <answer> block, with text in it, and nothing after it'",
        ),
    ],
)
def test_the_cause_that_fits_most_answers_is_told_with_a_setting(attempts, results, words):
    problem = explain([*attempts, attempt("so")], results=results)
    assert problem.startswith("none of 3 answers keeps the format of the protocol: ")
    assert words in problem and "\n" not in problem


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (("protocol.system_prompt=''",), "use one that does, such as --recipe hotpot-offline"),
        (("protocol.example_turns=0",), "--set protocol.example_turns=2, or train it first"),
        ((), "train it first, or use a larger one"),
    ],
)
def test_a_model_that_does_not_search_is_shown_how_or_trained(settings, advice):
    assert advice in explain([attempt("It is Rome.")], *settings)


def test_a_model_that_was_trained_on_its_searches_alone_is_not_sent_to_train():
    searching = [attempt(PLAN, RESULT, "b b b", tokens=LIMIT)] * 2
    problem = explain(searching, recipe="real-text")
    assert "rewards the searches alone (reward.weights.answer is 0)" in problem
    assert "train it first" not in problem
    # At first it cannot even search.
    untrained = explain([attempt("It is Rome.")], recipe="real-text")
    assert "there is no <search> block" in untrained
