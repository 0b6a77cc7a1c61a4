"""Dynamic sampling: which groups are replaced, by which questions, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.services.spend import ServiceSpend, Spend
from rsearch_cli.training import resampling
from rsearch_cli.training.resampling import Scored, find_ties, price_replaced, replace_ties
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    RewardParts,
    SearchPlan,
    SearchRound,
    Trajectory,
)

QUESTIONS = [Question(f"q{n}", f"Question {n}?", ("x",)) for n in range(12)]
SIZE = 2


def recipe(bound: int, seed: int = 3):
    settings = ["train.num_generations=2", f"train.resample_ties={bound}", f"seed={seed}"]
    return load_recipe("quickstart", settings).recipe


def scored(question: Question, reward: float | None) -> Scored:
    trajectory = Trajectory(question, (1,), "", (), (), "x", "answer")
    return Scored(trajectory, RewardParts(reward, 1.0, 1.0, reward), reward)


def group(question: Question, *rewards: float | None) -> list[Scored]:
    return [scored(question, reward) for reward in rewards]


def ids(rows: Sequence[Scored]) -> list[str]:
    return [row.trajectory.question.id for row in rows]


class Sampler:
    """Rolls out whatever it is asked; which questions tie is decided by a function."""

    def __init__(self, ties: Callable[[Question], bool] = lambda question: False) -> None:
        self.ties = ties
        self.calls: list[list[str]] = []

    def __call__(self, questions: Sequence[Question]) -> list[list[Scored]]:
        self.calls.append([question.id for question in questions])
        rewards = [float(i % SIZE and not self.ties(q)) for i, q in enumerate(questions)]
        return [[scored(q, reward) for q, reward in zip(questions, rewards, strict=True)]]


def tied_step() -> list[list[Scored]]:
    """A step of three groups, of which the first and the last tie."""
    a, b, c = QUESTIONS[:3]
    return [[*group(a, 1.0, 1.0), *group(b, 0.0, 1.0), *group(c, 0.5, 0.5)]]


@pytest.mark.parametrize(
    ("rewards", "tied"),
    [
        ([0.5, 0.5], True),
        ([0.1 + 0.2, 0.3], True),
        ([0.5, 0.501], False),
        ([0.5, None], True),
        ([None, None], True),
    ],
)
def test_a_group_ties_with_fewer_than_two_different_rewards(rewards, tied) -> None:
    rows = [*group(QUESTIONS[0], 0.0, 1.0), *group(QUESTIONS[1], *rewards)]
    assert find_ties(rows, SIZE) == ([2] if tied else [])


def test_ties_are_replaced_in_their_places_by_questions_that_the_step_has_not_asked() -> None:
    sample = Sampler()
    (kept,), replaced = replace_ties(tied_step(), QUESTIONS, recipe(2), 5, sample)
    assert ids(replaced) == ["q0", "q0", "q2", "q2"]
    assert ids(kept)[2:4] == ["q1", "q1"] and len(kept) == 6
    assert find_ties(kept, SIZE) == []
    assert len(sample.calls) == 1, "nothing was left to replace"
    new = {*ids(kept[:2]), *ids(kept[4:])}
    assert len(new) == 2 and new.isdisjoint({"q0", "q1", "q2"})


def test_the_bound_is_kept_and_no_question_comes_twice() -> None:
    sample = Sampler(ties=lambda question: True)
    (kept,), replaced = replace_ties(tied_step(), QUESTIONS, recipe(3), 5, sample)
    assert [len(call) for call in sample.calls] == [4, 4, 4]
    assert len(replaced) == 3 * 4
    drawn = [question for call in sample.calls for question in call]
    assert sorted(set(drawn)) == sorted(drawn[::2])
    assert len(find_ties(kept, SIZE)) == 2


def test_replacing_ends_when_the_questions_do() -> None:
    sample = Sampler(ties=lambda question: True)
    (kept,), replaced = replace_ties(tied_step(), QUESTIONS[:4], recipe(3), 5, sample)
    assert sample.calls == [["q3", "q3"]]
    assert ids(replaced) == ["q0", "q0"] and ids(kept)[:2] == ["q3", "q3"]
    alone = replace_ties(tied_step(), QUESTIONS[:3], recipe(3), 5, Sampler())
    assert alone == (tied_step(), [])


def test_seed_and_step_alone_decide_which_questions_come() -> None:
    def drawn(step: int, seed: int = 3) -> list[str]:
        sample = Sampler()
        replace_ties(tied_step(), QUESTIONS, recipe(1, seed), step, sample)
        return sample.calls[0]

    assert drawn(5) == drawn(5)
    assert len({tuple(drawn(step)) for step in range(8)}) > 3
    assert drawn(5) != drawn(5, seed=4)


def test_processes_replace_their_own_ties_by_different_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both processes decide the same, from what all have rolled out."""
    a, b, c, d = QUESTIONS[:4]
    step = [
        [*group(a, 1.0, 1.0), *group(b, 1.0, 1.0)],
        [*group(c, 0.0, 1.0), *group(d, 0.0, 0.0)],
    ]
    alone = Sampler()
    (whole,), replaced_alone = replace_ties([step[0] + step[1]], QUESTIONS, recipe(1), 5, alone)
    asked: dict[int, list[str]] = {}

    def sample(questions: Sequence[Question]) -> list[list[Scored]]:
        asked[resampling.rank()] = [question.id for question in questions]
        first, second = alone.calls[0][:4], alone.calls[0][4:]
        by_id = {question.id: question for question in QUESTIONS}
        return [Sampler()([by_id[i] for i in part])[0] for part in (first, second)]

    for number in (0, 1):
        monkeypatch.setattr(resampling, "rank", lambda number=number: number)
        kept, replaced = replace_ties(step, QUESTIONS, recipe(1), 5, sample)
        assert ids([row for rows in kept for row in rows]) == ids(whole)
        assert ids(replaced) == ids(replaced_alone)
    assert (asked[0], asked[1]) == (alone.calls[0][:4], alone.calls[0][4:])


def spend(exa: float, judge: float) -> Spend:
    return Spend({"exa": ServiceSpend(usd=exa), "judge": ServiceSpend(usd=judge)})


def searching(*queries: str) -> Trajectory:
    """A rollout with these searches."""
    nodes = [
        PlanNode(label, query, "General") for label, query in zip("ABC", queries, strict=False)
    ]
    results = tuple(NodeResult(node) for node in nodes)
    rounds = (SearchRound(SearchPlan(tuple(nodes)), (), results),)
    return Trajectory(QUESTIONS[0], (1,), "", (), rounds, "x", "answer")


def test_replaced_rollouts_cost_the_searches_that_no_other_has_sent_and_their_verdicts() -> None:
    before, after = spend(1.0, 0.1), spend(1.4, 0.16)
    replaced, kept = [searching("a", "b"), searching("b", "c")], [searching("c", "d")]
    # Of a, b, c and d, the replaced ones alone needed a and b; theirs are two of three verdicts.
    assert price_replaced(replaced, kept, before, after) == pytest.approx(0.2 + 0.04)
    cached = replace(replaced[0].rounds[0].results[0], cached=True)
    rounds = (replace(replaced[0].rounds[0], results=(cached,)),)
    repeated = [replace(replaced[0], rounds=rounds), searching("b", "c")]
    assert price_replaced(repeated, kept, before, after) == pytest.approx(0.2 + 0.04)
    assert price_replaced(replaced, kept, Spend(), Spend()) == 0.0
    assert price_replaced([], [], before, after) == 0.0
