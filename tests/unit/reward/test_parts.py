"""Further reward parts: what each scores, and what becomes of one that cannot be scored."""

from __future__ import annotations

import pytest

from rsearch_cli.errors import AccessDenied, RecipeValueError, RsearchError, ServiceFailure
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.recipe.training import PENALTIES, RewardConfig, highest_reward
from rsearch_cli.reward import parts as parts_module
from rsearch_cli.reward.composite import score_trajectories
from rsearch_cli.reward.economy import economy
from rsearch_cli.reward.length import length
from rsearch_cli.reward.no_answer import no_answer
from rsearch_cli.reward.parts import find_parts, score_parts
from rsearch_cli.reward.retrieval import retrieval
from rsearch_cli.types import (
    NodeResult,
    Passage,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

NODE = PlanNode("A", "capital of France", "General")
RECIPE = load_recipe("quickstart", ["rollout.max_new_tokens=100"]).recipe


def trajectory(
    *results: NodeResult,
    answer: str | None = "Paris",
    titles: tuple[str, ...] = (),
    written: int = 3,
    stop: str = "answer",
) -> Trajectory:
    segments = (
        Segment("plan", (1,) * written, "model"),
        Segment("results", (2,) * 500, "system"),
    )
    rounds = (SearchRound(SearchPlan((NODE,)), (), results),)
    question = Question("q", "What is the capital of France?", ("Paris",), supporting_titles=titles)
    return Trajectory(question, (0,), "", segments, rounds, answer, stop)


def found(*titles: str) -> NodeResult:
    return NodeResult(NODE, (), tuple(Passage(t, t, "text") for t in titles))


FAILED = NodeResult(NODE, error="no answer")


@pytest.mark.parametrize(("searches", "earned"), [(0, 1.0), (1, 1.0), (2, 0.5), (4, 0.25)])
def test_economy_falls_with_the_searches(searches: int, earned: float) -> None:
    assert economy(trajectory(*[found("x")] * searches), RECIPE) == earned


@pytest.mark.parametrize(
    ("results", "share"),
    [
        ([], 0.0),
        ([found("Paris", "Rome")], 0.5),
        ([found("paris"), found("Rome", "FRANCE ")], 1.0),
    ],
)
def test_retrieval_is_the_share_of_titles_found_whatever_the_answer(results, share) -> None:
    row = trajectory(*results, answer=None, titles=("Paris", "France"))
    assert retrieval(row, RECIPE) == share


def test_retrieval_does_not_apply_without_titles_and_is_unknown_after_a_failed_search() -> None:
    assert retrieval(trajectory(found("Paris")), RECIPE) is None
    assert retrieval(trajectory(FAILED), RECIPE) is None
    with pytest.raises(ServiceFailure, match="1 of its searches failed"):
        retrieval(trajectory(found("Paris"), FAILED, titles=("Paris", "Rome")), RECIPE)


def test_the_highest_reward_is_that_of_a_faultless_completion() -> None:
    extra = {"economy": 0.2, "length": 0.4, "no_answer": 0.1, "retrieval": 0.3}
    settings = [f"reward.extra.{name}={weight}" for name, weight in extra.items()]
    recipe = load_recipe("quickstart", settings).recipe
    faultless = trajectory(found("Paris"), titles=("Paris",))
    (parts,) = score_trajectories([faultless], recipe, step=100)
    known = {name: parts.extra[name] for name in extra}
    assert known == {"economy": 1.0, "length": 0.0, "no_answer": 0.0, "retrieval": 1.0}
    assert {name for name, score in known.items() if score == 0.0} == PENALTIES
    assert highest_reward(extra) == pytest.approx(1.0 + 0.2 + 0.3)
    assert highest_reward({"of_another_package": 0.5}) == 1.5


def test_a_negative_weight_is_refused_in_one_line() -> None:
    with pytest.raises(RecipeValueError, match="no_answer must be at least 0") as raised:
        load_recipe("quickstart", ["reward.extra.no_answer=-0.5"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("answer", "score"), [(None, -1.0), ("  ", -1.0), ("wrong", 0.0)])
def test_no_answer_is_a_penalty(answer: str | None, score: float) -> None:
    assert no_answer(trajectory(answer=answer), RECIPE) == score


@pytest.mark.parametrize(
    ("written", "score"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (120, -1.0)]
)
def test_length_is_the_soft_penalty_of_dapo_over_the_last_fifth(written: int, score: float) -> None:
    assert length(trajectory(written=written), RECIPE) == pytest.approx(score)
    assert length(trajectory(written=written, stop="length"), RECIPE) == -1.0


def test_a_part_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeValueError, match="no reward part 'econmy'; did you mean 'economy'"):
        find_parts(RewardConfig(extra={"econmy": 0.1}))


def test_a_part_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PARTS", {"broken": "rsearch_cli.reward.economy:missing"})
    with pytest.raises(RecipeValueError, match="part 'broken' cannot be loaded from rsearch_cli"):
        find_parts(RewardConfig(extra={"broken": 0.1}))


def test_every_part_that_ships_is_scored_and_weighted() -> None:
    weights = {"economy": 0.1, "length": 0.2, "no_answer": 0.3, "retrieval": 0.4}
    reward = RECIPE.reward.model_copy(update={"extra": weights})
    recipe = RECIPE.model_copy(update={"reward": reward})
    rows = [
        trajectory(found("Paris"), titles=("Paris", "Rome"), answer=None, written=90),
        trajectory(found("Paris")),
        trajectory(FAILED, titles=("Paris",)),
    ]
    plain = score_trajectories(rows, RECIPE, step=100)
    bad, good, unknown = score_trajectories(rows, recipe, step=100)
    expected = {"economy": 1.0, "length": -0.5, "no_answer": -1.0, "retrieval": 0.5}
    assert bad.extra == pytest.approx(expected)
    assert bad.total == pytest.approx(plain[0].total + 0.1 - 0.1 - 0.3 + 0.2)
    assert good.extra == {"economy": 1.0, "length": 0.0, "no_answer": 0.0}
    assert good.total == pytest.approx(plain[1].total + 0.1)
    assert (unknown.total, unknown.extra["retrieval"]) == (None, None)
    assert unknown.failure == "retrieval: 1 of its searches failed"


def test_a_silent_service_leaves_the_part_unscored_and_a_refused_key_ends_the_run() -> None:
    def silent(trajectory, recipe):
        raise ServiceFailure("no answer\nafter 3 attempts")

    def refused(trajectory, recipe):
        raise AccessDenied("the key was refused")

    scores, reason = score_parts({"silent": silent, "economy": economy}, trajectory(), RECIPE)
    assert scores == {"silent": None, "economy": 1.0}
    assert reason == "silent: no answer after 3 attempts"
    with pytest.raises(AccessDenied):
        score_parts({"refused": refused}, trajectory(), RECIPE)


@pytest.mark.parametrize("score", [float("nan"), 1.5, -2, "1.0"])
def test_what_is_not_a_score_is_refused(score: object) -> None:
    with pytest.raises(RsearchError, match=r"the reward part 'odd' returned .*from -1 to 1"):
        score_parts({"odd": lambda trajectory, recipe: score}, trajectory(), RECIPE)
