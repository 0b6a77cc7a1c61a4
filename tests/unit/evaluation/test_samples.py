"""Several samples of a question: pass@k, means over questions, and which batches are seeded how."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations
from math import comb

import pytest

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.intervals import mean_interval
from rsearch_cli.evaluation.samples import expected_best, pass_counts, start_batch
from rsearch_cli.evaluation.stored import Batch
from rsearch_cli.evaluation.summary import summarise
from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.types import Question


@pytest.fixture
def samples(result):
    """Makes samples of questions from their scores, ordered as an evaluation asks for them."""

    def make(**scores: list[float]):
        return [
            result(id, values[sample], sample=sample)
            for sample in range(max(map(len, scores.values())))
            for id, values in scores.items()
            if sample < len(values)
        ]

    return make


@pytest.mark.parametrize(("n", "correct"), [(5, 0), (5, 1), (5, 3), (5, 5), (8, 2)])
def test_pass_at_k_is_the_unbiased_estimator_of_chen_et_al(n, correct):
    values = [1.0] * correct + [0.0] * (n - correct)
    for k in range(1, n + 1):
        expected = 1 - comb(n - correct, k) / comb(n, k)
        assert expected_best(values, k) == pytest.approx(expected, abs=1e-12)
    assert expected_best(values, n) == float(correct > 0)


def test_graded_scores_have_the_expected_best_of_k():
    values = [0.9, 0.2, 0.5, 0.5]
    chosen = list(combinations(values, 2))
    assert expected_best(values, 2) == pytest.approx(sum(map(max, chosen)) / len(chosen))
    assert expected_best(values, 1) == pytest.approx(sum(values) / 4)
    assert expected_best(values, 4) == 0.9


def test_pass_at_k_is_reported_for_powers_of_two_and_all():
    assert [pass_counts(n) for n in (1, 2, 6, 8)] == [[], [2], [2, 4, 6], [2, 4, 8]]


def test_a_question_counts_once_however_many_samples_it_has(samples):
    rows = samples(a=[1.0, 1.0, 1.0], b=[1.0, 0.0, 0.0], c=[0.0, 0.0, 0.0])
    block = summarise(rows, batch_size=2)
    assert (block["n"], block["samples"], block["scored"]["em"]) == (3, 3, 3)
    assert block["em"] == pytest.approx(4 / 9)
    assert block["pass@2"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert block["pass@3"] == pytest.approx(2 / 3)
    # As wide as that of 3 questions, not of 9 answers.
    alone = summarise([row for row in rows if row.sample == 0])
    width, width_of_three = (
        high - low for low, high in (block["intervals"]["em"], alone["intervals"]["em"])
    )
    assert width > 0.9 * width_of_three
    assert block["by_type"] == {} and block["judge"] is None and block["judge_pass@2"] is None


def test_intervals_of_many_questions_are_bootstrapped_over_the_questions(samples):
    scores = {f"q{i}": [float(i % 4 > j) for j in range(3)] for i in range(40)}
    block = summarise(samples(**scores))
    means = summarise([row for row in samples(**scores) if row.sample == 0])
    assert block["interval_methods"]["em"] == "bootstrap"
    assert means["interval_methods"]["em"] == "Wilson"


def test_the_interval_over_questions_holds_the_truth_and_that_over_answers_does_not():
    # Each question has its own chance of a correct sample, uniform in [0, 1]: the truth is 1/2.
    rng = random.Random(0)
    held = {"questions": 0, "answers": 0}
    for _ in range(60):
        chances = [rng.random() for _ in range(40)]
        drawn = [[float(rng.random() < chance) for _ in range(8)] for chance in chances]
        for name, values in (
            ("questions", [sum(scores) / 8 for scores in drawn]),
            ("answers", [score for scores in drawn for score in scores]),
        ):
            interval = mean_interval(values)
            held[name] += interval.low <= 0.5 <= interval.high
    assert held["questions"] >= 52 > held["answers"]


def test_samples_without_an_answer_or_a_verdict_are_left_out(result):
    rows = [
        result("a", 1.0, sample=0, judge=1.0, judged=True),
        result("b", 0.0, sample=0, judge=0.0, judged=True),
        result("a", 0.0, sample=1, failure="no reply"),
        result("b", 1.0, sample=1, judge=None, judged=True),
    ]
    block = summarise(rows)
    assert (block["n"], block["failed_answers"], block["unscored"]) == (2, 1, 1)
    assert (block["em"], block["judge"]) == (0.75, 0.5)
    assert block["scored"]["pass@2"] == 1 and block["pass@2"] == 1.0
    assert block["scored"]["judge_pass@2"] == 0 and block["judge_pass@2"] is None


def test_the_time_of_a_batch_counts_once_in_every_sample(samples):
    rows = samples(a=[0.0, 0.0], b=[0.0, 0.0], c=[0.0, 0.0])
    took = [6.0, 6.0, 1.0, 4.0, 4.0, 1.0]  # batches of two and one, twice
    timed = [replace(row, seconds=seconds) for row, seconds in zip(rows, took, strict=True)]
    assert summarise(timed, batch_size=2)["seconds_per_question"] == 2.0


def test_samples_are_compared_by_question(samples, result):
    first = samples(a=[1.0, 0.0], b=[0.0, 0.0])
    second = samples(a=[1.0, 1.0], b=[1.0, 0.0])
    compared = compare(first, second)
    em = compared["metrics"]["em"]
    assert (compared["n"], em["n"], em["first"], em["second"]) == (2, 2, 0.25, 0.75)
    assert em["test"] == "sign flips" and compared["gained"] == compared["lost"] == []
    assert compared["metrics"]["pass@2"]["difference"] == 0.5
    greedy = compare([result("a", 0.0), result("b", 0.0)], second)["metrics"]
    assert greedy["em"]["difference"] == 0.75 and "pass@2" not in greedy


def test_a_sample_that_is_stored_twice_is_a_question_twice(samples):
    rows = samples(a=[1.0, 0.0])
    with pytest.raises(DataError, match="a question twice"):
        compare([*rows, rows[0]], rows)


@pytest.mark.stack
def test_samples_of_a_batch_are_drawn_from_the_seed_the_questions_and_the_sample(quickstart):
    import torch

    questions = [Question(id, "?", ("x",)) for id in "ab"]

    def draw(sample: int, questions=questions, seed: int = 7):
        recipe = quickstart.model_copy(update={"seed": seed})
        sampling = start_batch(Batch("rsearch", questions, sample), recipe, on_server=False)
        return sampling, torch.rand(1).item()

    first = draw(0)
    assert first[0].temperature == quickstart.rollout.temperature
    assert draw(0) == first
    others = [draw(1), draw(0, seed=8), draw(0, questions[::-1])]
    assert len({drawn for _, drawn in (first, *others)}) == 4
    assert len({sampling.draw for sampling, _ in (first, *others)}) == 3
    state = torch.get_rng_state()
    assert start_batch(Batch("rsearch", questions), quickstart, on_server=False) == GREEDY
    assert torch.get_rng_state().equal(state)
