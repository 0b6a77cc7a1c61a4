"""Settings of a recipe that `rsearch train` also takes as flags.

Place in the path: between the command line and `recipe.loading`, which takes them as its highest
layer and blames a bad value on its flag. On failure: a value that is no number is a usage error;
whatever else is wrong with one, the recipe's own checks say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer

DATA_PANEL, MODEL_PANEL, TRAINING_PANEL = "Questions", "Model and adapter", "Training"
REWARD_PANEL, WANDB_PANEL, HUB_PANEL = "Rollout and reward", "Weights & Biases", "Hugging Face Hub"


@dataclass(frozen=True, slots=True)
class Setting:
    """One flag.

    Attributes:
        flag: Its name.
        key: Dotted key of the recipe that it sets.
        kind: Type of its value; `list` is words with commas or blanks between them.
        panel: Heading in the help.
        help: One line.
        default: The value in the recipe `hotpot-hard`, as the help shows it.
    """

    flag: str
    key: str
    kind: type
    panel: str
    help: str
    default: str

    @property
    def name(self) -> str:
        """Name of the parameter."""
        return self.flag.removeprefix("--").replace("-", "_")


_TABLE: Mapping[str, Sequence[tuple[str, str, type, str, str]]] = {
    DATA_PANEL: (
        ("--data-source", "questions.source", str, "hotpotqa, world or custom.", "hotpotqa"),
        ("--data-path", "questions.path", str, "Question file; custom needs one.", "from the Hub"),
        ("--max-samples", "questions.max_samples", int, "Most training questions.", "1000"),
        ("--difficulty", "questions.difficulty", list, "easy, medium, hard.", "hard"),
        ("--data-split", "questions.train_split", str, "Split to train on.", "train"),
    ),
    MODEL_PANEL: (
        (
            "--model-name",
            "policy.model",
            str,
            "Hub id or model folder.",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        ),
        ("--lora-r", "policy.lora.r", int, "Rank of the adapter.", "16"),
        ("--lora-alpha", "policy.lora.alpha", int, "Scale of the adapter.", "32"),
        ("--lora-dropout", "policy.lora.dropout", float, "Dropout on its input.", "0.05"),
        (
            "--lora-target-modules",
            "policy.lora.target_modules",
            list,
            "Modules that get one.",
            "q_proj,k_proj,v_proj,o_proj",
        ),
    ),
    TRAINING_PANEL: (
        ("--stage", "stage", str, "grpo; or sft, which learns traces first.", "grpo"),
        ("--batch-size", "train.batch_size", int, "Completions per forward pass.", "1"),
        ("--max-steps", "train.max_steps", int, "Optimiser steps.", "100"),
        ("--lr", "train.learning_rate", float, "Peak learning rate.", "5e-06"),
        ("--num-generations", "train.num_generations", int, "Completions a question.", "4"),
        (
            "--gradient-accumulation-steps",
            "train.gradient_accumulation_steps",
            int,
            "Passes a step.",
            "4",
        ),
        ("--save-steps", "train.save_steps", int, "Steps between checkpoints.", "50"),
        ("--seed", "seed", int, "Seed of the run.", "42"),
    ),
    REWARD_PANEL: (
        (
            "--curriculum-steps",
            "reward.curriculum_steps",
            int,
            "Steps that weigh format and plan more.",
            "30",
        ),
        ("--reward-model", "reward.judge.model", str, "The judge.", "gpt-4o-mini"),
        ("--score-mode", "reward.judge.mode", str, "continuous, discrete or multi.", "continuous"),
        ("--max-turns", "rollout.max_turns", int, "Most searches in one completion.", "1"),
        (
            "--max-new-tokens",
            "rollout.max_new_tokens",
            int,
            "Most tokens the policy writes.",
            "1024",
        ),
    ),
    WANDB_PANEL: (
        ("--use-wandb", "wandb.enabled", bool, "Track the run.", "no"),
        ("--wandb-project", "wandb.project", str, "Project.", "r-search-training"),
        ("--wandb-run-name", "wandb.run_name", str, "Name of the run.", "one that W&B chooses"),
    ),
    HUB_PANEL: (
        ("--push-to-hub", "hub.push", bool, "Publish the run when it is done.", "no"),
        ("--hub-model-id", "hub.model_id", str, "Repository, as in user/name.", "none"),
        ("--hub-private", "hub.private", bool, "Only its owner sees it.", "no"),
    ),
}

SETTINGS = tuple(
    Setting(flag, key, kind, panel, help_line, default)
    for panel, rows in _TABLE.items()
    for flag, key, kind, help_line, default in rows
)
"""All flags that set one key of the recipe, in the order of the help."""


_OF_SFT = ("max_steps", "learning_rate", "batch_size", "gradient_accumulation_steps")


def settings_of_stage(settings: Mapping[str, Any], stage: object) -> dict[str, Any]:
    """The settings with those flags that each stage has of its own turned to the stage's section.

    Args:
        settings: Dotted keys and values, as `takes_settings` gives them.
        stage: The recipe's `stage`.
    """
    moved = {f"train.{name}": f"sft.{name}" for name in _OF_SFT} if stage == "sft" else {}
    return {moved.get(key, key): value for key, value in settings.items()}


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `SETTINGS`; it gets their values as `settings`, key to value.

    Args:
        command: Its last parameter is `settings`, a mapping of dotted keys; «not given» is None.
    """

    @wraps(command)
    def with_settings(**given: Any) -> None:
        values = {setting.key: _read(setting, given.pop(setting.name)) for setting in SETTINGS}
        command(**given, settings=values)

    own = inspect.signature(command, eval_str=True)
    parameters = [p for p in own.parameters.values() if p.name != "settings"]
    parameters += [_as_parameter(setting) for setting in SETTINGS]
    with_settings.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_settings


def _as_parameter(setting: Setting) -> inspect.Parameter:
    option = typer.Option(
        f"{setting.flag}/--no-{setting.flag[2:]}" if setting.kind is bool else setting.flag,
        help=setting.help,
        show_default=setting.default,
        rich_help_panel=setting.panel,
    )
    kind: Any = str if setting.kind is list else setting.kind
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _read(setting: Setting, value: Any) -> Any:
    if setting.kind is list and value is not None:
        return value.replace(",", " ").split()
    return value
