from __future__ import annotations

import pytest
from PIL import Image

from rsearch_cli.publishing.reward_plot import CURVES, plot_reward


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


def test_a_further_part_is_drawn_and_a_penalty_is_not(tmp_path):
    rows = [{"step": n, "reward": 0.5, "reward/x": 0.9, "reward/y": -0.1} for n in range(1, 9)]
    assert plot_reward(rows, tmp_path / "reward.png")
    seen = colours(tmp_path / "reward.png")
    assert (0x81, 0x72, 0xB3) in seen and (0x64, 0xB5, 0xCD) not in seen


def test_gaps_and_missing_curves_are_left_out(tmp_path):
    rows = [{"step": 1, "reward": 0.5}, {"step": 2, "reward": None}, {"step": 3, "reward": 2.0}]
    assert plot_reward(rows, tmp_path / "reward.png")


def test_a_run_without_a_reward_has_no_picture(tmp_path):
    assert not plot_reward([{"step": 1, "reward": None}], tmp_path / "reward.png")
    assert not (tmp_path / "reward.png").exists()
