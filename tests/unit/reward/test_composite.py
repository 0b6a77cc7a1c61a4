"""The composite reward: curriculum, gate, unscored answers and the shuffled control."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.recipe.training import RewardConfig, WeightsConfig
from rsearch_cli.reward.composite import (
    combine,
    plan_score,
    score_trajectories,
    shuffle_answer_scores,
    weights_at,
)
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    RewardParts,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

WEIGHTS = WeightsConfig(answer=0.5, plan=0.25, format=0.25)
VALID = SearchRound(plan=SearchPlan(nodes=(PlanNode("A", "capital of France", "General"),)))
INVALID = SearchRound(plan=None, problems=("no nodes",))
PLAN = "<think> hm </think>\n<search>\nNodes:\nA: capital of France (General)\nEdges:\n</search>"
RESULT = "\n<result>\nParis is the capital of France.\n</result>\n"


def trajectory(
    answer: str | None = "Paris",
    rounds: tuple[SearchRound, ...] = (VALID,),
    reference: str = "Paris",
) -> Trajectory:
    ending = "" if answer is None else f"<answer> {answer} </answer>"
    return Trajectory(
        question=Question(id="q", text="What is the capital of France?", answers=(reference,)),
        prompt_ids=(1,),
        opening="",
        segments=(
            Segment(PLAN, (2, 3), "model"),
            Segment(RESULT, (4,), "system"),
            Segment(ending, (5,), "model"),
        ),
        rounds=rounds,
        answer=answer,
        stop="answer" if answer else "eos",
    )


def score(
    trajectory: Trajectory, reward: RewardConfig, protocol: ProtocolConfig, step: int
) -> RewardParts:
    """The parts of one trajectory, scored by itself."""
    quickstart = load_recipe("quickstart").recipe
    recipe = quickstart.model_copy(update={"reward": reward, "protocol": protocol})
    (parts,) = score_trajectories([trajectory], recipe, step)
    return parts


def test_a_faultless_trajectory_earns_one() -> None:
    parts = score(trajectory(), RewardConfig(), ProtocolConfig(), step=100)
    assert parts == RewardParts(answer=1.0, plan=1.0, format=1.0, total=1.0)


@pytest.mark.parametrize("answer", ["em", "f1"])
def test_the_recipe_chooses_how_answers_are_compared(answer: str) -> None:
    chinese = trajectory(answer="北京。", reference="北京")
    official = score(chinese, RewardConfig(answer=answer), ProtocolConfig(), step=100)
    letters = score(
        chinese, RewardConfig(answer=answer, normalisation="cjk"), ProtocolConfig(), step=100
    )
    assert (official.answer, letters.answer) == (0.0, 1.0)


def test_the_recipe_chooses_the_lexical_score() -> None:
    half = trajectory(answer="Paris France", reference="Paris")
    f1 = score(half, RewardConfig(answer="f1"), ProtocolConfig(), step=100)
    em = score(half, RewardConfig(answer="em"), ProtocolConfig(), step=100)
    assert f1.answer == pytest.approx(2 / 3)
    assert em.answer == 0.0
    assert f1.total == pytest.approx(0.5 * 2 / 3 + 0.5)
    assert em.total == pytest.approx(0.5)


def test_no_answer_scores_zero_rather_than_unscored() -> None:
    parts = score(trajectory(answer=None), RewardConfig(), ProtocolConfig(), step=100)
    assert parts.answer == 0.0
    assert parts.format < 1.0
    assert parts.total == pytest.approx(0.25 + 0.25 * parts.format)


def test_curriculum_switches_at_exactly_the_configured_step() -> None:
    recipe = RewardConfig(curriculum_steps=3)
    used = [weights_at(step, recipe) for step in range(5)]
    assert used == [recipe.curriculum_weights] * 3 + [recipe.weights] * 2
    wrong = trajectory(answer="London")
    totals = [score(wrong, recipe, ProtocolConfig(), step).total for step in (2, 3)]
    assert totals == [pytest.approx(0.8), pytest.approx(0.5)]


def test_without_a_curriculum_the_first_step_has_the_final_weights() -> None:
    recipe = RewardConfig(curriculum_steps=0)
    assert weights_at(0, recipe) == recipe.weights


def test_an_invalid_plan_takes_the_answer_out_of_the_total_but_not_out_of_the_report() -> None:
    bad = trajectory(rounds=(VALID, INVALID))
    gated = score(bad, RewardConfig(require_valid_plan=True), ProtocolConfig(), step=100)
    open_ = score(bad, RewardConfig(require_valid_plan=False), ProtocolConfig(), step=100)
    assert gated.answer == open_.answer == 1.0
    assert gated.plan == open_.plan == 0.0
    assert open_.total is not None
    assert gated.total == pytest.approx(open_.total - 0.5)


@pytest.mark.parametrize(
    ("rounds", "score"),
    [((), 0.0), ((VALID,), 1.0), ((VALID, VALID), 1.0), ((INVALID,), 0.0), ((VALID, INVALID), 0.0)],
)
def test_plan_score_asks_for_a_round_and_for_all_of_them_to_be_valid(
    rounds: tuple[SearchRound, ...], score: float
) -> None:
    assert plan_score(rounds) == score


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("plan", [0.0, 1.0])
def test_an_unscored_answer_leaves_the_whole_row_unscored(plan: float, gate: bool) -> None:
    parts = combine(None, plan, 0.75, WEIGHTS, gate)
    assert parts == RewardParts(answer=None, plan=plan, format=0.75, total=None)


def test_total_is_the_weighted_sum() -> None:
    weights = WeightsConfig(answer=0.2, plan=0.3, format=0.5)
    assert combine(0.5, 1.0, 0.4, weights, gate=True).total == pytest.approx(0.1 + 0.3 + 0.2)


def batch() -> list[RewardParts]:
    scores = [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, None, 1.0, 0.1, 0.9]
    return [
        combine(score, float(i % 3 > 0), i / 10, WEIGHTS, gate=True)
        for i, score in enumerate(scores)
    ]


def test_shuffling_keeps_the_scores_and_moves_them() -> None:
    before = batch()
    after = shuffle_answer_scores(before, WEIGHTS, RewardConfig(), random.Random(3))
    assert Counter(p.answer for p in after) == Counter(p.answer for p in before)
    assert [p.answer for p in after] != [p.answer for p in before]
    assert [(p.plan, p.format) for p in after] == [(p.plan, p.format) for p in before]
    assert [p.answer is None for p in after] == [p.answer is None for p in before]


@pytest.mark.parametrize("gate", [True, False])
def test_shuffled_totals_are_summed_up_anew(gate: bool) -> None:
    recipe = RewardConfig(require_valid_plan=gate)
    for part in shuffle_answer_scores(batch(), WEIGHTS, recipe, random.Random(3)):
        assert part == combine(part.answer, part.plan, part.format, WEIGHTS, gate)


def test_shuffling_follows_its_random_source_alone() -> None:
    deals = [
        shuffle_answer_scores(batch(), WEIGHTS, RewardConfig(), random.Random(seed))
        for seed in (3, 3, 4)
    ]
    assert deals[0] == deals[1]
    assert deals[0] != deals[2]


def test_shuffling_breaks_the_tie_between_answer_and_row() -> None:
    rows = [combine(float(i == 0), 1.0, 1.0, WEIGHTS, gate=True) for i in range(4)]
    rng = random.Random(0)
    winners = Counter(
        [p.answer for p in shuffle_answer_scores(rows, WEIGHTS, RewardConfig(), rng)].index(1.0)
        for _ in range(2000)
    )
    assert all(400 < winners[i] < 600 for i in range(4))


def test_a_further_part_adds_its_weight_times_its_score() -> None:
    searched = SearchRound(plan=VALID.plan, results=(NodeResult(VALID.plan.nodes[0]),) * 2)
    recipe = RewardConfig(extra={"economy": 0.2})
    plain = score(trajectory(rounds=(searched,)), RewardConfig(), ProtocolConfig(), step=100)
    parts = score(trajectory(rounds=(searched,)), recipe, ProtocolConfig(), step=100)
    assert (plain.extra, parts.extra) == ({}, {"economy": 0.5})
    assert parts.total == pytest.approx(plain.total + 0.2 * 0.5)
    (dealt,) = shuffle_answer_scores([parts], WEIGHTS, recipe, random.Random(0))
    assert dealt == parts


def test_an_unscored_row_keeps_its_further_scores() -> None:
    parts = combine(None, 1.0, 1.0, WEIGHTS, True, {"economy": 1.0}, {"economy": 0.1})
    assert (parts.total, parts.extra) == (None, {"economy": 1.0})


def test_a_failed_part_leaves_the_row_unscored_and_an_absent_one_does_not() -> None:
    weights = {"retrieval": 0.5, "economy": 0.1}
    failed = combine(1.0, 1.0, 1.0, WEIGHTS, True, {"retrieval": None, "economy": 1.0}, weights)
    assert (failed.answer, failed.total) == (1.0, None)
    absent = combine(1.0, 1.0, 1.0, WEIGHTS, True, {"economy": 1.0}, weights)
    assert absent.total == pytest.approx(1.1)


def test_without_a_reference_a_row_is_scored_if_answers_have_no_weight() -> None:
    known = trajectory()
    unknown = replace(known, question=replace(known.question, answers=()))
    searches = RewardConfig(
        weights=WeightsConfig(answer=0.0, plan=0.5, format=0.5), curriculum_steps=0
    )
    assert score(unknown, searches, ProtocolConfig(), 0) == RewardParts(None, 1.0, 1.0, 1.0)
    assert score(unknown, RewardConfig(), ProtocolConfig(), 0).total is None
