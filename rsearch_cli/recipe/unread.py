"""Finds settings of the command line that a run does not use, so that none is ignored silently."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import GOLD_TITLES, TEACHER, WORLD
from rsearch_cli.runs.json_text import dump_json

if TYPE_CHECKING:
    from rsearch_cli.recipe.loading import LoadedRecipe

logger = logging.getLogger(__name__)

Given = tuple[str, str]
"""A setting of the command line: how it was given (`--reward-model`), and its dotted key."""

_SET: tuple[object, ...] = ()
"""Any value but null."""

# Settings, the setting that decides whether they are used, and its values for which they are.
_READ_WITH: Sequence[tuple[Sequence[str], str, tuple[object, ...]]] = (
    (["questions.world"], "questions.source", ("world",)),
    (["questions.held_out_share", "questions.held_out_by"], "questions.path", _SET),
    (["reward.judge"], "reward.answer", ("judge",)),
    (["wandb"], "wandb.enabled", (True,)),
    (["policy.endpoint"], "policy.endpoint.url", _SET),
    (["dialogue.endpoint"], "dialogue.writer", ("auto", "endpoint")),
    (["rollout.vllm_url", "rollout.vllm_folder"], "rollout.engine", ("vllm-server",)),
    (["rollout.vllm_memory_share"], "rollout.engine", ("vllm",)),
    (["evaluate.slice", "evaluate.slice_split"], "evaluate.every_steps", _SET),
    (["sft"], "stage", ("sft",)),
    (["sft.teacher"], "sft.traces", (TEACHER,)),
    (
        [
            *("reward.weights", "reward.curriculum_weights", "reward.curriculum_steps"),
            *("reward.answer", "reward.require_valid_plan", "reward.shuffle_answers"),
            *("reward.extra", "reward.normalise_parts", "reward.judge"),
            *("questions.profile", "questions.pass_rate", "questions.order"),
            *("evaluate.every_steps", "evaluate.slice", "evaluate.slice_split", "alarms"),
            *("train.max_steps", "train.mask_truncated", "train.keep"),
            *("train.learning_rate", "train.batch_size", "train.gradient_accumulation_steps"),
            *("train.num_generations", "train.resample_ties", "train.beta"),
            *("train.epsilon", "train.epsilon_high"),
            *("train.loss_type", "train.scale_rewards"),
        ],
        "stage",
        ("grpo",),
    ),
)

# Settings, the setting that decides, its values for which they are not used, and what uses them.
_UNREAD_WITH: Sequence[tuple[Sequence[str], str, tuple[object, ...], str]] = (
    (
        ["sft.per_question", "sft.min_f1"],
        "sft.traces",
        (WORLD, GOLD_TITLES),
        f"{TEACHER} or a file",
    ),
    (["reward.curriculum_weights"], "reward.curriculum_steps", (0,), "1 or more"),
)

_OF_TRAINING = (
    *("stage", "train", "sft", "alarms", "wandb", "hub", "output_dir"),
    *("questions.train_split", "questions.max_samples", "questions.profile", "questions.pass_rate"),
    *("questions.order", "evaluate.sampled", "evaluate.every_steps"),
    *("evaluate.slice", "evaluate.slice_split", "evaluate.show_trajectories"),
    *("reward.weights", "reward.curriculum_weights", "reward.curriculum_steps"),
    *("reward.require_valid_plan", "reward.shuffle_answers", "reward.extra"),
    "reward.normalise_parts",
)
_READ_FOR_RATES = (
    *("questions.train_split", "questions.max_samples", "reward.require_valid_plan"),
)
_NOT_READ_BY: Mapping[str, Sequence[str]] = {
    "eval": (*_OF_TRAINING, "dialogue", "rollout.temperature", "rollout.top_p"),
    "eval --samples": (*_OF_TRAINING, "dialogue"),
    "data --profile": (
        *(key for key in _OF_TRAINING if key not in _READ_FOR_RATES),
        *("dialogue", "evaluate"),
    ),
    "eval rescore": (
        *_OF_TRAINING,
        *("dialogue", "evaluate", "policy", "protocol", "questions", "rollout", "search", "seed"),
    ),
    "infer": (*_OF_TRAINING, "rollout.temperature", "reward", "evaluate"),
}
"""Command to the settings it never uses; `eval` decodes greedily, `infer` has --temperature."""


WITHOUT_CORPUS = ("exa", "http", "searxng", "serper", "tavily", "wikipedia")
"""Types of sources that ask a service."""


def describe_unread(recipe: Recipe, given: Sequence[Given], command: str) -> Iterator[str]:
    """Yield a line for every given setting that the command does not use.

    Args:
        recipe: The recipe with the given settings.
        given: The settings of the command line.
        command: Name of the command, such as `eval`.
    """
    for how, key in given:
        if _covers(_NOT_READ_BY.get(command, ()), key):
            yield f"{how} is not used by rsearch {command}"
            continue
        if reason := _find_reason(recipe, key, command):
            yield f"{how} is not used: {reason}"
    for name, source in recipe.search.sources.items():
        if source.type in WITHOUT_CORPUS and source.corpus != "questions":
            yield (
                f"search.sources.{name}.corpus is not used: sources of type {source.type} ask a "
                "service"
            )


def _find_reason(recipe: Recipe, key: str, command: str) -> str | None:
    """Return why a setting has no effect with the others; None if it has one."""
    for keys, decider, values in _READ_WITH:
        if not _covers(keys, key) or key == decider:
            continue
        if _covers(_NOT_READ_BY.get(command, ()), decider):
            continue  # such as the stage of the run that an evaluation is of
        seen = _look_up(recipe, decider)
        if values is _SET and seen is None:
            return f"{decider} is not set"
        if values is not _SET and seen not in values:
            return f"{decider} is {_show(seen)}, not {_show(values[0])}"
    for keys, decider, unread_values, wanted in _UNREAD_WITH:
        if _covers(keys, key) and (seen := _look_up(recipe, decider)) in unread_values:
            return f"{decider} is {_show(seen)}, not {wanted}"
    by_question = recipe.stage == "grpo" or recipe.sft.traces in (GOLD_TITLES, TEACHER)
    if key == "questions.max_samples" and command == "train" and not by_question:
        return f"sft.traces is {recipe.sft.traces}, not {GOLD_TITLES} or {TEACHER}"
    if key == "questions.profile" and not recipe.questions.uses_profile:
        return "neither questions.pass_rate nor questions.order=easy_to_hard is set"
    return None


def _covers(keys: Sequence[str], key: str) -> bool:
    return any(key == known or key.startswith(f"{known}.") for known in keys)


def _look_up(recipe: Recipe, key: str) -> object:
    value: object = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _show(value: object) -> str:
    return dump_json(value) if value is None or isinstance(value, bool) else str(value)


def log_notes(loaded: LoadedRecipe, command: str, implied: int = 0) -> None:
    """Log what loading a recipe has changed, and the settings that the command does not use.

    Args:
        loaded: The recipe with its settings.
        command: Name of the command, such as `eval`.
        implied: Number of the first settings that the command itself has added.
    """
    for line in loaded.notes:
        logger.info(line)
    for line in describe_unread(loaded.recipe, loaded.given[implied:], command):
        logger.warning(line)
