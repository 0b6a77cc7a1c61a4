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
from rsearch_cli.workflows.estimate import estimate, memory_lines, plan_for, presumed_backend

RECIPES = sorted(recipes_folder().glob("*.yaml"))
WITHOUT_A_CARD = {"quickstart", "hotpot-offline", "real-text"}
"""Those that run on a CPU."""

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
def test_an_extending_recipe_repeats_nothing_of_its_base(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "extends" not in data:
        pytest.skip("it extends none")
    base = dict(_leaves(load_recipe(data.pop("extends")).recipe.model_dump()))
    introduced = ("hardware", "needs")
    repeated = [k for k, v in _leaves(data) if k not in introduced and base.get(k) == v]
    assert repeated == []


def _memory_comment(path: Path) -> tuple[list[str], float] | None:
    """The lines under `# Memory:` and the GB of the card that they name; None without them."""
    text = path.read_text(encoding="utf-8").split("\n\n")[0]
    _, found, block = text.partition(f"# Memory:   rsearch estimate --recipe {path.stem} --vram ")
    if not found:
        return None
    vram, *lines = block.splitlines()
    return [line.removeprefix("#             ") for line in lines], float(vram)


@every_recipe
def test_it_opens_with_the_memory_plan_that_is_computed(path: Path) -> None:
    comment = _memory_comment(path)
    if comment is None:
        assert path.stem in WITHOUT_A_CARD
        return
    written, vram = comment
    recipe = load_recipe(path.stem).recipe
    planned = plan_for(recipe, presumed_backend(recipe), vram)
    assert written == memory_lines(planned)
    assert planned.fits
    assert f"{vram:g} GB GPU" in recipe.hardware


@every_recipe
def test_its_override_fits_the_card_too(path: Path) -> None:
    comment = _memory_comment(path)
    if comment is None:
        pytest.skip("it is not for a card")
    text = path.read_text(encoding="utf-8")
    override = text.partition("# Override:")[2].splitlines()[0]
    models = re.findall(r"--model (\S+)", override)
    flags = {"policy.model": models[0]} if models else {}
    recipe = load_recipe(path.stem, re.findall(r"--set (\S+)", override), flags).recipe
    assert plan_for(recipe, presumed_backend(recipe), comment[1]).fits


def test_there_is_one_for_every_size_of_card() -> None:
    sizes = {comment[1] for path in RECIPES if (comment := _memory_comment(path))}
    assert sizes == {8, 12, 16, 24, 48, 80}


def test_only_the_seed_s_recipe_has_dropout() -> None:
    dropout = {path.stem: load_recipe(path.stem).recipe.policy.lora.dropout for path in RECIPES}
    assert {name for name, value in dropout.items() if value} == {"hotpot-hard"}


@pytest.mark.parametrize(
    ("name", "usd"), [("hotpot-overnight", 3), ("hotpot-overnight-offline", 0)]
)
def test_a_night_is_long_enough_on_a_4090(name: str, usd: float) -> None:
    recipe = load_recipe(name).recipe
    estimated = estimate(recipe, card="rtx-4090")
    assert not isinstance(estimated.time, str)
    # Even if every completion is as long as it may be, and every group ties.
    assert sum(estimated.time.high.values()) <= 12 * 3600
    assert estimated.without_cache.total.usd <= usd
    train = recipe.train
    questions = train.batch_size * train.gradient_accumulation_steps / train.num_generations
    assert 8 <= questions <= 16 and train.num_generations == 8
    assert (train.resample_ties, train.keep) == (1, "best")


@every_recipe
def test_the_hours_in_its_header_are_those_of_the_estimate(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(rtx-\d+): ([\d.]+) hours, from ([\d.]+) to ([\d.]+)", text)
    assert bool(found) == ("overnight" in path.stem)
    for card, *written in found:
        time = estimate(load_recipe(path.stem).recipe, card=card).time
        assert not isinstance(time, str)
        hours = [sum(part.values()) / 3600 for part in (time.seconds, time.low, time.high)]
        assert [float(figure) for figure in written] == pytest.approx(hours, rel=0.05)
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert all(f"{mean} hours, from {low} to {high}" in page for _, mean, low, high in found)


def test_the_flagship_is_the_run_that_is_promised() -> None:
    recipe = load_recipe("hotpot-hard").recipe
    policy, train = recipe.policy, recipe.train
    assert policy.model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    # On CUDA: NF4, bfloat16 and, with Unsloth, its own gradient checkpointing.
    assert (policy.load_in_4bit, policy.dtype, policy.gradient_checkpointing) == (
        True,
        "auto",
        None,
    )
    assert (policy.lora.r, policy.lora.alpha) == (16, 32)
    assert policy.lora.target_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert (train.num_generations, train.batch_size) == (4, 1)
    assert (train.gradient_accumulation_steps, train.learning_rate) == (4, 5e-6)
    assert (train.max_steps, recipe.reward.curriculum_steps) == (100, 30)
    weights = recipe.reward.weights
    assert (weights.answer, weights.plan, weights.format) == (0.5, 0.25, 0.25)
    assert (recipe.reward.extra, recipe.reward.normalise_parts) == ({}, False)
    assert train.resample_ties == 0
    assert (recipe.questions.source, recipe.questions.difficulty) == ("hotpotqa", ["hard"])
    assert {source.type for source in recipe.search.sources.values()} == {"exa"}
    assert (recipe.reward.answer, recipe.reward.judge.model) == ("judge", "gpt-4o-mini")
    planned = plan_for(recipe, presumed_backend(recipe), 24.0)
    assert planned.plan.total_gb <= 20


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
