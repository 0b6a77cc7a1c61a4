"""The reward part of docs/extending.md, installed as its users would install it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rsearch_cli.errors import RecipeValueError
from rsearch_cli.policy.generation import GREEDY
from rsearch_cli.questions.sets import open_question_set
from rsearch_cli.recipe.loading import load_recipe
from rsearch_cli.reward.composite import score_trajectories
from rsearch_cli.reward.parts import GROUP, find_parts
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.search.executor import open_executor
from rsearch_cli.services.runtime import open_services

Install = Callable[[str, str, str], None]


def test_it_scores_real_rollouts(nano_policy, install: Install, tmp_path: Path) -> None:
    install("grounded_reward", GROUP, "grounded = grounded_reward:grounded")
    plain = load_recipe("quickstart").recipe
    recipe = load_recipe("quickstart", ["reward.extra.grounded=0.2"]).recipe
    world = open_question_set(recipe.questions, recipe.seed)
    with (
        open_services(recipe, tmp_path / "run", tmp_path / "cache") as services,
        open_executor(recipe, world.corpus, services) as executor,
    ):
        rows = Rollout(nano_policy, executor, recipe).run(world.load("test", 8), GREEDY)
    scored = score_trajectories(rows, recipe, step=100)
    answered = [parts for row, parts in zip(rows, scored, strict=True) if row.answer]
    assert answered and all(0.0 <= parts.extra["grounded"] <= 1.0 for parts in answered)
    assert max(parts.extra["grounded"] for parts in answered) == 1.0
    for before, parts in zip(score_trajectories(rows, plain, step=100), scored, strict=True):
        earned = 0.2 * parts.extra.get("grounded", 0.0)
        assert parts.total == pytest.approx(before.total + earned)


def test_a_package_cannot_replace_a_part_of_ours(install: Install) -> None:
    install("grounded_reward", GROUP, "economy = grounded_reward:grounded")
    recipe = load_recipe("quickstart", ["reward.extra.economy=0.2"]).recipe
    assert find_parts(recipe.reward)["economy"].__module__ == "rsearch_cli.reward.economy"


def test_one_that_cannot_be_loaded_is_named_with_its_package(install: Install) -> None:
    install("grounded_reward", GROUP, "grounded = grounded_reward:gone")
    recipe = load_recipe("quickstart", ["reward.extra.grounded=0.2"]).recipe
    with pytest.raises(RecipeValueError, match="'grounded' of the package grounded-reward cannot"):
        find_parts(recipe.reward)


def test_it_is_short_and_stands_in_the_documentation(repository: Path) -> None:
    source = (repository / "docs/examples/grounded_reward.py").read_text(encoding="utf-8")
    page = (repository / "docs/extending.md").read_text(encoding="utf-8")
    assert f"```python\n{source}```\n" in page
    assert f'[project.entry-points."{GROUP}"]\ngrounded = "grounded_reward:grounded"' in page
