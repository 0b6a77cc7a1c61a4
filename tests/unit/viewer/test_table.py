"""Groups and advantages, against TRL's own functions."""

from __future__ import annotations

import pytest

from rsearch_cli.viewer.table import Table, describe_advantages

REWARDS = [1.0, 0.0, 0.5, 0.25, None, 0.75, 1.0, 1.0]


def table(rewards, group_size=4, ids="aaaabbbb", steps=None) -> Table:
    made = Table(group_size)
    for position, (reward, id) in enumerate(zip(rewards, ids, strict=True)):
        step = steps[position] if steps else 1
        made.add({"phase": "train", "id": id, "step": step, "reward": reward})
    return made


def advantages(made: Table, scale: str) -> list:
    made.fill_advantages(scale)
    return made.as_rows()["columns"]["advantage"]


@pytest.mark.stack
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_those_of_trl(scale):
    import torch
    from trl.trainer.utils import nanstd

    rewards = torch.tensor([torch.nan if r is None else r for r in REWARDS])
    grouped = rewards.view(-1, 4)
    expected = grouped - grouped.nanmean(dim=1, keepdim=True)
    if scale == "group":
        expected = expected / (nanstd(grouped, dim=1)[:, None] + 1e-4)
    elif scale == "batch":
        expected = expected / (nanstd(rewards) + 1e-4)
    expected = expected.nan_to_num(nan=0.0).flatten().tolist()
    assert advantages(table(REWARDS), scale) == pytest.approx(expected, abs=1e-5)


def test_groups_are_neighbours_of_one_question_and_step():
    made = table([0.0] * 8, ids="aaabbbaa", steps=[1, 1, 2, 2, 2, 2, 2, 2], group_size=None)
    assert made.as_rows()["columns"]["group"] == [0, 0, 1, 2, 2, 2, 3, 3]


def test_a_question_drawn_twice_in_a_step_is_two_groups():
    made = table([0.0] * 8, ids="aaaaaaaa")
    assert made.as_rows()["columns"]["group"] == [0] * 4 + [1] * 4


def test_groups_without_a_difference_and_lone_scores_have_no_advantage():
    assert advantages(table([1.0] * 4, ids="aaaa"), "group") == [0.0] * 4
    assert advantages(table([1.0, None, None, None], ids="aaaa"), "group") == [0.0] * 4


def test_predictions_have_no_group():
    made = Table(4)
    made.add({"phase": "after-greedy", "id": "a", "em": 1.0})
    made.fill_advantages("group")
    columns = made.as_rows()["columns"]
    assert columns["group"] == columns["advantage"] == [None]


def test_the_formula_is_named():
    assert "standard deviation of its step" in describe_advantages("batch", stored=True)
    assert "divided" not in describe_advantages("none", stored=True)
    assert "no recipe" in describe_advantages("group", stored=False)
