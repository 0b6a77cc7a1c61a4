"""PNG plot of the reward for the model card.

Drawn with Pillow, which the training stack already depends on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsearch_cli.terminal import finite

CURVES = {
    "reward/answer": ("answer", "#4c72b0"),
    "reward/plan": ("plan", "#55a868"),
    "reward/format": ("format", "#dd9b2b"),
    "reward": ("reward", "#c44e52"),
}
# Of further parts, in alphabetical order; parts beyond these are not drawn.
_FURTHER = ("#8172b3", "#64b5cd", "#937860", "#8c8c8c")
_WIDTH, _HEIGHT = 960, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 140, 30, 60
_INK, _GRID = "#333333", "#dddddd"

Point = tuple[float, float]
Area = tuple[tuple[float, float], tuple[float, float]]
"""First and last step, lowest and highest value."""


def plot_reward(rows: Sequence[Mapping[str, object]], target: Path) -> bool:
    """Plot the reward and its components over the optimiser steps.

    Args:
        rows: Rows of `metrics.jsonl`; missing and null values are skipped.
        target: The PNG file to write.

    Returns:
        Whether there was anything to plot.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = {**_further_curves(rows), **CURVES}
    curves = {key: _points(rows, key) for key in shown}
    steps = [step for points in curves.values() for step, _ in points]
    if not steps:
        return False
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    ticks = reward_ticks(value for points in curves.values() for _, value in points)
    area = (min(steps), max(steps)), (ticks[0], ticks[-1])
    _draw_axes(draw, font, area, ticks)
    for key, points in curves.items():
        name, colour = shown[key]
        places = [_place(point, area) for point in points]
        width = 3 if key == "reward" else 2
        if len(places) > 1:
            draw.line(places, fill=colour, width=width, joint="curve")
        for x, y in places if len(places) < 30 else ():
            draw.ellipse((x - width, y - width, x + width, y + width), fill=colour)
        line = list(shown).index(key)
        y = _TOP + 24 * (len(shown) - line)
        draw.line((_WIDTH - _RIGHT + 20, y, _WIDTH - _RIGHT + 45, y), fill=colour, width=width)
        draw.text((_WIDTH - _RIGHT + 52, y), name, fill=_INK, font=font, anchor="lm")
    picture.save(target, optimize=True)
    return True


def reward_ticks(values: Iterable[float]) -> list[float]:
    """Return the ticks of an axis for rewards, its limits included.

    The axis holds all values, and at least those from 0 to 1.
    """
    known = (0.0, 1.0, *values)
    low, high = min(known), max(known)
    distance = 0.25
    while high - low > 8 * distance:
        distance *= 2
    return [distance * n for n in range(math.floor(low / distance), math.ceil(high / distance) + 1)]


def _draw_axes(draw: Any, font: Any, area: Area, ticks: Sequence[float]) -> None:
    first, last = area[0]
    for value in ticks:
        (x, y), end = _place((first, value), area), _WIDTH - _RIGHT
        draw.line((_LEFT, y, end, y), fill=_GRID)
        draw.text((_LEFT - 10, y), f"{value:g}", fill=_INK, font=font, anchor="rm")
    bottom = _HEIGHT - _BOTTOM
    draw.line((_LEFT, _TOP, _LEFT, bottom, _WIDTH - _RIGHT, bottom), fill=_INK)
    for step in sorted({round(first + (last - first) * i / 4) for i in range(5)}):
        x, _ = _place((step, 0.0), area)
        draw.line((x, bottom, x, bottom + 5), fill=_INK)
        draw.text((x, bottom + 10), f"{step:g}", fill=_INK, font=font, anchor="mt")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    draw.text((middle, _HEIGHT - 12), "optimiser step", fill=_INK, font=font, anchor="mb")


def _place(point: Point, area: Area) -> Point:
    """Return the pixel of a step and a value; a single step is centred."""
    (step, value), ((first, last), (low, high)) = point, area
    share = (step - first) / (last - first) if last > first else 0.5
    x = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
    y = _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
    return x, y


def _further_curves(rows: Sequence[Mapping[str, object]]) -> dict[str, tuple[str, str]]:
    """Map the keys of further parts of the reward to name and colour of their curves."""
    keys = {key for row in rows for key in row if key.startswith("reward/")} - CURVES.keys()
    return {
        key: (key.removeprefix("reward/"), colour)
        for key, colour in zip(sorted(keys), _FURTHER, strict=False)
    }


def _points(rows: Sequence[Mapping[str, object]], key: str) -> list[Point]:
    points = [(finite(row, "step"), finite(row, key)) for row in rows]
    return [(step, value) for step, value in points if step is not None and value is not None]
