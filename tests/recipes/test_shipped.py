"""Every recipe that comes with rsearch loads, introduces itself and repeats no default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rsearch_cli.recipe.loading import load_recipe, recipes_folder
from rsearch_cli.recipe.schema import Recipe

RECIPES = sorted(recipes_folder().glob("*.yaml"))
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def test_the_two_recipes_of_the_first_release_are_there() -> None:
    assert {"quickstart", "hotpot-offline"} <= {path.stem for path in RECIPES}


@every_recipe
def test_it_loads_by_its_name(path: Path) -> None:
    loaded = load_recipe(path.stem)
    assert (loaded.name, loaded.path) == (path.stem, path)


@every_recipe
def test_it_opens_with_its_launch_command_and_an_override(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines[: lines.index("")] if line.startswith("#")]
    assert lines[0].startswith(f"# Launch:   rsearch train --recipe {path.stem}")
    assert any(
        line.startswith(f"# Override: rsearch train --recipe {path.stem} ") for line in header
    )


@every_recipe
def test_it_opens_with_purpose_hardware_and_needs(path: Path) -> None:
    keys = re.findall(r"^(\w+):", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert keys[:3] == ["purpose", "hardware", "needs"]


@every_recipe
def test_the_settings_in_its_header_are_accepted(path: Path) -> None:
    settings = re.findall(r"--set (\S+)", path.read_text(encoding="utf-8"))
    assert settings
    load_recipe(path.stem, settings)


@every_recipe
def test_it_repeats_no_default(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "extends" in data:
        pytest.skip("a recipe that extends another may have to restore a default")
    defaults = dict(_leaves(Recipe(purpose="", hardware="").model_dump()))
    repeated = [key for key, value in _leaves(data) if key in defaults and defaults[key] == value]
    assert repeated == []


def _leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
