"""Command-line flags of recipe keys: one mapping, from which the commands build their options.

Type, range, default and help of a flag are those of the recipe's field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rsearch_cli.errors import UsageError
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.training import TEACHER

ANY_NAME = "*"

FLAGS: Mapping[str, tuple[str, ...]] = {
    "questions.source": ("--source", "--data-source"),
    "questions.path": ("--data-path", "--path"),
    "questions.max_samples": ("--max-samples",),
    "questions.difficulty": ("--difficulty",),
    "questions.train_split": ("--split", "--data-split"),
    "policy.model": ("--model", "--model-name"),
    "policy.lora.r": ("--lora-r",),
    "policy.lora.alpha": ("--lora-alpha",),
    "policy.lora.dropout": ("--lora-dropout",),
    "policy.lora.target_modules": ("--lora-target-modules",),
    "stage": ("--stage",),
    "sft.teacher.url": ("--teacher",),
    "sft.teacher.model": ("--teacher-model",),
    "train.batch_size": ("--batch-size",),
    "train.max_steps": ("--max-steps",),
    "train.learning_rate": ("--lr",),
    "train.num_generations": ("--num-generations",),
    "train.gradient_accumulation_steps": ("--gradient-accumulation-steps",),
    "train.save_steps": ("--save-steps",),
    "seed": ("--seed",),
    "reward.curriculum_steps": ("--curriculum-steps",),
    "reward.judge.model": ("--reward-model",),
    "reward.judge.mode": ("--score-mode",),
    "rollout.max_turns": ("--max-turns",),
    "rollout.max_new_tokens": ("--max-new-tokens",),
    "wandb.enabled": ("--use-wandb",),
    "wandb.project": ("--wandb-project",),
    "wandb.run_name": ("--wandb-run-name",),
    "hub.push": ("--push-to-hub",),
    "hub.model_id": ("--hub-model-id",),
    "hub.private": ("--hub-private",),
}
"""Dotted key of the recipe to its flag on the command line, and to older names of that flag."""

_HELP_COLUMNS = 30
# Flags of single commands; in `rsearch eval`, --split is the split to evaluate.
_OTHER_FLAGS: Mapping[str, tuple[str, ...]] = {
    "dialogue.follow_up": ("--follow-up",),
    "dialogue.style": ("--style",),
    "evaluate.limit": ("--limit",),
    "evaluate.split": ("--split", "--data-split"),
    "policy.endpoint.model": ("--endpoint-model",),
    "policy.endpoint.url": ("--endpoint",),
    "sft.traces": ("--teacher",),  # which sets it, too
}
_STAGE_KEYS = {
    f"train.{name}": f"sft.{name}"
    for name in ("max_steps", "learning_rate", "batch_size", "gradient_accumulation_steps")
}


@dataclass(frozen=True, slots=True)
class RecipeFlag:
    """A flag that sets one key of the recipe.

    Attributes:
        key: The dotted key.
        names: The flag, then its older names.
        kind: Type of the value; `list` stands for words separated by commas or blanks.
        choices: The values that are allowed, where the field lists them.
        help: What the field's description says first.
        default: The field's default as text; "" for none, for switches (all are off), and if it
            is too long for a column of help.
    """

    key: str
    names: tuple[str, ...]
    kind: type
    choices: tuple[str, ...]
    help: str
    default: str


def flag_of(key: str) -> str:
    """The flag that sets a dotted key, as messages name it."""
    shared = {sft: train for train, sft in _STAGE_KEYS.items()}
    names = flag_names(shared.get(key, key))
    return names[0] if names else "--" + key.rpartition(".")[2].replace("_", "-")


def flag_names(key: str) -> tuple[str, ...]:
    """All names of a key's flag; empty if it has none."""
    return FLAGS.get(key) or _OTHER_FLAGS.get(key, ())


def describe_flag(key: str) -> RecipeFlag:
    """Build the flag of a dotted key from the recipe's field."""
    field = schema_fields()[key]
    kind, choices = _read_type(field.annotation)
    default = field.get_default(call_default_factory=True)
    if default is None or isinstance(default, bool):
        shown = ""
    else:
        shown = ",".join(default) if isinstance(default, list) else str(default)
    description = " ".join((field.description or "").split())
    first = description.split(";")[0].split(". ")[0].rstrip(".")
    if len(shown) > _HELP_COLUMNS:
        shown = ""
    return RecipeFlag(key, flag_names(key), kind, choices, f"{first}.", shown)


def read_value(flag: RecipeFlag, given: Any) -> Any:
    """The value of a flag as the recipe takes it; None means not given."""
    if flag.kind is list and given is not None:
        return given.replace(",", " ").split()
    return given


def keys_of_stage(settings: Mapping[str, Any], stage: object) -> dict[str, Any]:
    """Move settings that GRPO and the supervised stage both have to the section of the stage.

    Args:
        settings: Dotted keys and values.
        stage: The recipe's `stage`.
    """
    moved = _STAGE_KEYS if stage == "sft" else {}
    return {moved.get(key, key): value for key, value in settings.items()}


def let_teacher_write(
    settings: Mapping[str, Any], stage: object, overrides: Sequence[str]
) -> dict[str, Any]:
    """Take the traces from the teacher that a flag names.

    Args:
        settings: Dotted keys and values of the flags; None means not given.
        stage: The recipe's `stage`.
        overrides: `--set` settings.

    Raises:
        UsageError: The stage trains on no traces, or an override takes them from elsewhere.
    """
    if settings.get("sft.teacher.url") is None:
        return dict(settings)
    if stage != "sft":
        raise UsageError("--teacher writes traces for the supervised stage; add --stage sft")
    for override in overrides:
        key, _, origin = override.partition("=")
        if key.strip() == "sft.traces" and origin.strip() != TEACHER:
            raise UsageError(
                f"--teacher and --set {override} both say where the traces come from; omit one"
            )
    return {**settings, "sft.traces": TEACHER}


@cache
def schema_fields() -> Mapping[str, FieldInfo]:
    """Every key of the schema, dotted; `*` stands for a name that the recipe chooses."""
    return dict(_walk(Recipe, ""))


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        dotted, kind = prefix + name, field.annotation
        yield dotted, field
        if get_origin(kind) is dict:
            dotted, kind = f"{dotted}.{ANY_NAME}", get_args(kind)[1]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk(kind, f"{dotted}.")


def _read_type(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """The type of a value given on the command line, and its choices."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is list:
        return list, _read_type(get_args(annotation)[0])[1]
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    return annotation, ()
