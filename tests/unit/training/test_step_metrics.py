"""The row of a step: what failed, what was sent, what it cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsearch_cli.services.spend import ServiceSpend, Spend
from rsearch_cli.training.resampling import Scored
from rsearch_cli.training.step_metrics import StepMetrics, describe_failures, describe_spend
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

QUESTION = Question("q", "Which river?", ("Tiber",))


def trajectory(*errors: str | None, cached: bool = False) -> Trajectory:
    """One search a given error; None stands for a search that went well."""
    nodes = [PlanNode(chr(65 + i), f"river {i}", "General") for i in range(len(errors))]
    results = tuple(
        NodeResult(node, error=error, cached=cached and error is None)
        for node, error in zip(nodes, errors, strict=True)
    )
    round_ = SearchRound(SearchPlan(tuple(nodes)), results=results)
    segment = Segment("text", (1, 2), "model")
    return Trajectory(QUESTION, (5,), "", (segment,), (round_,), "Tiber", "answer")


def parts(answer: float | None = 1.0) -> RewardParts:
    return RewardParts(answer, 1.0, 1.0, answer)


def spend(exa: tuple[float, float, int, int], judge: tuple[float, float, int, int]) -> Spend:
    names = ("usd", "saved_usd", "calls", "hits")
    return Spend(
        {
            "exa": ServiceSpend(**dict(zip(names, exa, strict=True))),
            "judge": ServiceSpend(**dict(zip(names, judge, strict=True))),
        }
    )


def test_failures_are_counted_with_their_share() -> None:
    trajectories = [trajectory("late", None, None), trajectory(None, None)]
    assert describe_failures(trajectories, [parts(None), parts()]) == {
        "failed/search": 1,
        "failed/judge": 1,
        "failed/read": 0,
        "failed_share/search": 0.2,
        "failed_share/judge": 0.5,
    }


def test_an_answer_without_a_reference_has_not_failed() -> None:
    unknown = replace(trajectory(), question=replace(QUESTION, answers=()))
    row = describe_failures([unknown, trajectory()], [parts(None), parts(None)])
    assert (row["failed/judge"], row["failed_share/judge"]) == (1, 0.5)


def test_a_step_without_searches_has_no_failed_ones() -> None:
    assert describe_failures([trajectory()], [parts()]) == {
        "failed/search": 0,
        "failed/judge": 0,
        "failed/read": 0,
        "failed_share/search": 0.0,
        "failed_share/judge": 0.0,
    }


def test_money_is_the_runs_and_counts_are_the_steps() -> None:
    before = spend((1.0, 0.2, 200, 40), (0.5, 0.1, 50, 5))
    now = spend((1.5, 0.3, 300, 60), (0.75, 0.2, 57, 8))
    assert describe_spend(before, now) == {
        "spend/usd": 2.25,
        "spend/saved_usd": 0.5,
        "calls/search": 100,
        "cache_hits/search": 20,
        "calls/judge": 7,
        "cache_hits/judge": 3,
        "calls/read": 0,
        "cache_hits/read": 0,
    }


def test_all_services_but_the_judge_are_searches() -> None:
    now = Spend({"exa": ServiceSpend(calls=3), "mine": ServiceSpend(calls=4)})
    row = describe_spend(Spend(), now)
    assert (row["calls/search"], row["calls/judge"]) == (7, 0)


def test_pages_are_counted_apart_from_searches() -> None:
    now = Spend({"exa": ServiceSpend(calls=3), "read": ServiceSpend(calls=4, hits=2),
                 "robots": ServiceSpend(calls=1)})  # fmt: skip
    row = describe_spend(Spend(), now)
    assert (row["calls/search"], row["calls/read"], row["cache_hits/read"]) == (3, 5, 2)
    unread = NodeResult(PlanNode("A", "river", "General"), unread=("http://a.example/: 404",) * 2)
    round_ = SearchRound(SearchPlan((unread.node,)), results=(unread,))
    read = Trajectory(QUESTION, (5,), "", (), (round_,), None, "eos")
    row = describe_failures([read], [parts()])
    assert (row["failed/read"], row["failed/search"]) == (2, 0)


def test_local_searches_are_no_calls_but_may_be_hits() -> None:
    row = describe_spend(Spend(), Spend({"local": ServiceSpend(calls=30, hits=12)}))
    assert (row["calls/search"], row["cache_hits/search"], row["spend/usd"]) == (0, 12, 0.0)


def test_a_closed_step_has_a_row_and_the_next_one_counts_from_there() -> None:
    first = spend((1.0, 0.0, 200, 0), (0.0, 0.0, 0, 0))
    second = spend((1.5, 0.0, 300, 10), (0.1, 0.0, 8, 0))
    third = spend((2.0, 0.0, 350, 30), (0.2, 0.0, 12, 4))
    step_metrics = StepMetrics(first)
    step_metrics.record([trajectory("late", None)], [parts()])
    step_metrics.add_seconds(search=0.5)
    row = step_metrics.close(1, {"kl": 0.25}, second)
    assert (row["step"], row["kl"], row["searches"]) == (1, 0.25, 2)
    assert (row["calls/search"], row["calls/judge"], row["cache_hits/search"]) == (100, 8, 10)
    assert (row["failed/search"], row["failed_share/search"]) == (1, 0.5)
    step_metrics.record([trajectory(None)], [parts()])
    row = step_metrics.close(2, {}, third)
    assert (row["calls/search"], row["calls/judge"]) == (50, 4)
    assert (row["spend/usd"], row["failed/search"]) == (2.2, 0)


def test_a_row_says_how_much_of_the_step_goes_in_circles_and_keeps_the_format() -> None:
    step_metrics = StepMetrics()
    circles = Segment("<think> so so so so so so <think> ", (1, 2), "model")
    rows = [trajectory(None), Trajectory(QUESTION, (5,), "", (circles,), (), None, "length")]
    step_metrics.record(rows, [parts(), RewardParts(0.0, 0.0, 0.875, 0.0)])
    row = step_metrics.close(1, {}, Spend())
    assert row["repeated/tags"] == 0.25 and row["repeated/ngrams"] == pytest.approx(1 / 3)
    assert (row["format_valid"], row["truncated"]) == (0.5, 0.5)


def test_what_comes_between_two_steps_counts_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("rsearch_cli.training.step_metrics.time.perf_counter", lambda: now[0])
    step_metrics = StepMetrics()
    now[0] += 50
    step_metrics.begin(spend((1.0, 0.0, 200, 0), (0.0, 0.0, 0, 0)))
    now[0] += 3
    step_metrics.record([trajectory(None)], [parts()])
    step_metrics.add_seconds(generate=1.0)
    row = step_metrics.close(1, {}, spend((1.5, 0.0, 201, 0), (0.0, 0.0, 0, 0)))
    assert (row["seconds/step"], row["seconds/update"], row["calls/search"]) == (3.0, 2.0, 1)
    assert row["spend/usd"] == 1.5, "money is that of the whole run"


def test_what_was_replaced_is_counted_with_its_price_and_failures_but_not_trained_on() -> None:
    metrics = StepMetrics()
    lost = RewardParts(None, 1.0, 1.0, None)
    metrics.discard([Scored(trajectory("late"), parts(0.5), 0.5)])
    metrics.discard([Scored(trajectory(None), lost, None)])
    metrics.record([trajectory()], [parts(1.0)])
    spent = spend((0.02, 0.0, 1, 1), (0.015, 0.0, 3, 0))
    row = metrics.close(1, {"frac_reward_zero_std": 0.5}, spent)
    assert (row["discarded/rollouts"], row["discarded/usd"]) == (2, 0.03)
    assert (row["reward"], row["discarded/reward"]) == (1.0, 0.5)
    assert (row["failed/search"], row["failed/judge"], row["searches"]) == (1, 1, 2)
    assert row["groups/zero_advantage"] == 0.5
    metrics.record([trajectory(None)], [parts(1.0)])
    metrics.tied = 0.25
    following = metrics.close(2, {"frac_reward_zero_std": 0.0}, Spend())
    assert not any(name.startswith("discarded/") for name in following)
    assert following["groups/zero_advantage"] == 0.25


def test_further_parts_are_averaged_over_the_rows_that_have_them_and_failures_counted() -> None:
    rows = [trajectory(None)] * 3
    found = RewardParts(1.0, 1.0, 1.0, 1.5, {"retrieval": 0.5})
    absent = RewardParts(1.0, 1.0, 1.0, 1.0, {"no_answer": -1.0})
    failed = RewardParts(1.0, 1.0, 1.0, None, {"retrieval": None}, "retrieval: no answer")
    metrics = StepMetrics()
    metrics.record(rows, [found, absent, failed])
    row = metrics.close(1, {}, Spend())
    assert (row["reward/retrieval"], row["reward/no_answer"]) == (0.5, -1.0)
    assert (row["failed/parts"], row["unscored"]) == (1, 1)
    assert row["failed_share/parts"] == pytest.approx(1 / 3)
