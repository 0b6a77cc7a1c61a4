from __future__ import annotations

import itertools

import pytest
from PIL import Image

from rsearch_cli.publishing.reward_plot import CURVES, plot_reward, reward_ticks


def colours(path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}


def rgb(key: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(CURVES[key][1][1:]))


@pytest.mark.parametrize("steps", [1, 2, 500])
def test_all_curves_are_drawn(tmp_path, steps):
    rows = [{"step": n + 1, **dict.fromkeys(CURVES, n / 600)} for n in range(steps)]
    assert plot_reward(rows, tmp_path / "reward.png")
    assert {rgb(key) for key in CURVES} <= colours(tmp_path / "reward.png")


def test_further_parts_and_penalties_are_drawn(tmp_path):
    rows = [{"step": n, "reward": 0.5, "reward/x": 0.9, "reward/y": -0.1} for n in range(1, 9)]
    assert plot_reward(rows, tmp_path / "reward.png")
    assert {(0x81, 0x72, 0xB3), (0x64, 0xB5, 0xCD)} <= colours(tmp_path / "reward.png")


def test_rewards_above_one_and_below_zero_have_places_of_their_own(tmp_path):
    values = {"reward": 1.8, "reward/answer": 1.323, "reward/plan": 1.0, "reward/format": -0.4}
    assert plot_reward([{"step": 1, **values}], tmp_path / "reward.png")
    with Image.open(tmp_path / "reward.png") as picture:
        pixels = picture.convert("RGB").load()
        column = [pixels[445, y] for y in range(picture.height)]  # a single step is centred
    places = [column.index(rgb(key)) for key in values]
    scale = [(a - b) / (places[0] - places[2]) for a, b in itertools.pairwise(places)]
    assert scale == pytest.approx([0.477 / 0.8, 0.323 / 0.8, 1.4 / 0.8], abs=0.05)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([], [0, 0.25, 0.5, 0.75, 1]),
        ([0.3, 1.0], [0, 0.25, 0.5, 0.75, 1]),
        ([1.8], [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]),
        ([-0.1, 1.0], [-0.25, 0, 0.25, 0.5, 0.75, 1]),
        ([-0.6, 2.6], [-1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3]),
    ],
)
def test_the_axis_holds_all_values(values, ticks):
    assert reward_ticks(values) == ticks


def test_gaps_and_missing_curves_are_left_out(tmp_path):
    rows = [{"step": 1, "reward": 0.5}, {"step": 2, "reward": None}, {"step": 3, "reward": 2.0}]
    assert plot_reward(rows, tmp_path / "reward.png")


def test_a_run_without_a_reward_has_no_picture(tmp_path):
    assert not plot_reward([{"step": 1, "reward": None}], tmp_path / "reward.png")
    assert not (tmp_path / "reward.png").exists()
