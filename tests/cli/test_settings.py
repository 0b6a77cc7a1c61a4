"""Every flag of `rsearch train` that sets a key of the recipe: where it goes, and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rsearch_cli.app import app
from rsearch_cli.recipe.flags import FLAGS, describe_flag
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.workflows import train as training

# What is given, and what must stand in the recipe then; all differ from the defaults.
GIVEN: dict[str, tuple[str, Any]] = {
    "--data-source": ("custom", "custom"),
    "--path": ("mine.jsonl", "mine.jsonl"),
    "--max-samples": ("7", 7),
    "--difficulty": ("easy,medium", ["easy", "medium"]),
    "--data-split": ("validation", "validation"),
    "--model-name": ("builtin:nano", "builtin:nano"),
    "--lora-r": ("8", 8),
    "--lora-alpha": ("64", 64),
    "--lora-dropout": ("0.1", 0.1),
    "--lora-target-modules": ("q_proj up_proj", ["q_proj", "up_proj"]),
    "--stage": ("sft", "sft"),
    "--teacher": ("http://localhost:1/v1", "http://localhost:1/v1"),
    "--teacher-model": ("big", "big"),
    "--batch-size": ("2", 2),
    "--max-steps": ("9", 9),
    "--lr": ("1e-4", 1e-4),
    "--num-generations": ("2", 2),
    "--gradient-accumulation-steps": ("8", 8),
    "--save-steps": ("3", 3),
    "--seed": ("5", 5),
    "--curriculum-steps": ("4", 4),
    "--reward-model": ("gpt-5-nano", "gpt-5-nano"),
    "--score-mode": ("discrete", "discrete"),
    "--max-turns": ("3", 3),
    "--max-new-tokens": ("99", 99),
    "--use-wandb": ("", True),
    "--wandb-project": ("mine", "mine"),
    "--wandb-run-name": ("first", "first"),
    "--push-to-hub": ("", True),
    "--hub-model-id": ("me/agent", "me/agent"),
    "--hub-private": ("", True),
}


# What has to be given beside a flag.
BESIDE = {
    "--push-to-hub": ("--hub-model-id", "me/agent"),
    "--teacher": ("--stage", "sft", "--set", "sft.teacher.model=big"),
    "--teacher-model": ("--stage", "sft", "--set", "sft.teacher.url=http://localhost:1/v1"),
}


class Caught(Exception):
    """The recipe has been resolved; nothing more is wanted."""


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `rsearch train` up to the point where the resolved recipe is used, and gives it."""

    def resolve(*arguments: str) -> Recipe:
        recipes: list[Recipe] = []

        def catch(recipe: Recipe, path: Path, **_: Any) -> None:
            recipes.append(recipe)
            raise Caught

        monkeypatch.setattr(training, "train", catch)
        result = CliRunner().invoke(
            app, ["train", "--recipe", "hotpot-hard", "--force", *arguments]
        )
        assert recipes, result.output
        return recipes[0]

    return resolve


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_every_flag_is_tried() -> None:
    assert set(GIVEN) == {names[-1] for names in FLAGS.values()}


@pytest.mark.parametrize("key", FLAGS)
def test_a_flag_reaches_its_place(key: str, resolve: Any) -> None:
    """By its name, and by the one that it had in earlier versions."""
    *newer, name = FLAGS[key]
    text, value = GIVEN[name]
    needed = BESIDE.get(name, ())
    before = resolve(*needed)
    for flag in (name, *newer):
        after = resolve(*needed, flag, *([text] if text else []))
        assert value_of(after, key) == value != value_of(before, key)
        # And nothing else.
        section, _, field = key.rpartition(".")
        if section:
            changed = value_of(after, section).model_copy(update={field: value_of(before, key)})
            assert changed == value_of(before, section)


@pytest.mark.parametrize("key", FLAGS)
def test_the_help_of_a_flag_is_that_of_its_field(key: str) -> None:
    flag = describe_flag(key)
    default = value_of(Recipe(purpose="", hardware=""), key)
    words = ",".join(default) if isinstance(default, list) else str(default)
    assert flag.default == ("" if default in (None, False) or len(words) > 30 else words)
    assert flag.help[0].isupper() or flag.help.startswith("`")
    assert flag.help.endswith(".") and "null" not in flag.help


def test_a_command_line_of_the_seed_works(resolve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "EXA_API_KEY"):
        monkeypatch.setenv(variable, "")
    recipe = resolve(
        "--data-source", "custom",
        "--data-path", "your_data.json",
        "--max-samples", "500",
        "--use-wandb",
        "--openai-api-key", "YOUR_KEY",
        "--exa-api-key", "YOUR_KEY",
    )  # fmt: skip
    assert (recipe.questions.source, recipe.questions.path) == ("custom", "your_data.json")
    assert recipe.questions.max_samples == 500
    assert recipe.wandb.enabled
    assert recipe.output_dir == "output"
    assert recipe.policy.model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert recipe.reward.answer == "judge"
    assert {source.type for source in recipe.search.sources.values()} == {"exa"}


def test_the_flags_that_each_stage_has_of_its_own_follow_it(resolve: Any) -> None:
    given = ("--max-steps", "9", "--lr", "1e-4", "--batch-size", "3")
    given += ("--gradient-accumulation-steps", "8", "--save-steps", "7")
    recipe = resolve("--stage", "sft", *given)
    assert (recipe.sft.max_steps, recipe.sft.learning_rate) == (9, 1e-4)
    assert (recipe.sft.batch_size, recipe.sft.gradient_accumulation_steps) == (3, 8)
    default = resolve()
    assert recipe.train == default.train.model_copy(update={"save_steps": 7})
    assert resolve("--set", "stage=sft", "--max-steps", "9").sft.max_steps == 9
