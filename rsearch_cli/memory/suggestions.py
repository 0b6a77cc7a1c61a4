"""Settings that make a run smaller, and by how much.

Place in the path: beside `plan`; each knob is a plan of the same recipe with one thing changed. On
failure: as in `plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rsearch_cli.memory.prediction import plan_memory
from rsearch_cli.memory.shape import MLP, ModelShape, adapted_modules
from rsearch_cli.memory.workload import Backend, longest_row
from rsearch_cli.recipe.schema import Recipe

LEAST_GB = 0.05
"""A knob that saves less is not worth telling."""

_ROUND = 128


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One change of a recipe.

    Attributes:
        settings: As `--set` takes them.
        saves_gb: What the run takes less with it alone, in GB.
        total_gb: What the run takes with it alone, in GB.
    """

    settings: tuple[str, ...]
    saves_gb: float
    total_gb: float

    def __str__(self) -> str:
        return " ".join(f"--set {setting}" for setting in self.settings)


def list_knobs(shape: ModelShape, recipe: Recipe, backend: Backend) -> list[Suggestion]:
    """All changes that make the run smaller, the most effective first.

    Args:
        shape: The model's dimensions.
        recipe: As it is now.
        backend: What will run the weights.
    """
    now = plan_memory(shape, recipe, backend).total_gb
    suggestions = []
    for change in _changes(recipe):
        changed = _apply(recipe, change)
        chosen = changed.policy.backend
        then = plan_memory(shape, changed, backend if chosen == "auto" else chosen).total_gb
        settings = tuple(f"{key}={_write(value)}" for key, value in change.items())
        suggestions.append(Suggestion(settings, now - then, then))
    return sorted(
        (suggestion for suggestion in suggestions if suggestion.saves_gb >= LEAST_GB),
        key=lambda k: -k.saves_gb,
    )


def _changes(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Dotted keys and their new values; each step is a halving, or a switch."""
    policy, rollout, train, lora = recipe.policy, recipe.rollout, recipe.train, recipe.policy.lora
    if rollout.micro_batch > 1:
        yield {"rollout.micro_batch": rollout.micro_batch // 2}
    row = longest_row(recipe).total
    if row >= 2 * _ROUND:
        yield {"policy.max_seq_length": row // 2 // _ROUND * _ROUND}
    if rollout.max_new_tokens >= 16:
        yield {"rollout.max_new_tokens": rollout.max_new_tokens // 2}
    if rollout.max_turns > 1:
        yield {"rollout.max_turns": rollout.max_turns - 1}
    if policy.load_in_4bit is False:
        yield {"policy.load_in_4bit": True}
    if policy.gradient_checkpointing is False:
        yield {"policy.gradient_checkpointing": True}
    if policy.backend == "transformers":
        yield {"policy.backend": "unsloth"}
    adapted = adapted_modules(lora)
    attention = [module for module in adapted if module not in MLP]
    if attention and attention != adapted:
        yield {"policy.lora.target_modules": attention}
    if lora.r > 1:
        yield {"policy.lora.r": lora.r // 2}
    if train.batch_size > 1 and train.batch_size % 2 == 0:
        # As many rows a step as before: memory, not learning, is what this changes.
        yield {
            "train.batch_size": train.batch_size // 2,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps * 2,
        }


def _apply(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    for dotted, value in change.items():
        recipe = _replace(recipe, dotted.split("."), value)
    return recipe


def _replace(section: Any, keys: list[str], value: Any) -> Any:
    """A copy of a section with one of the values inside it changed."""
    first, *rest = keys
    inner = _replace(getattr(section, first), rest, value) if rest else value
    return section.model_copy(update={first: inner})


def _write(value: Any) -> str:
    """A value as `--set` reads it, without a space."""
    writers: Mapping[type, Callable[[Any], str]] = {
        bool: lambda flag: str(flag).lower(),
        list: lambda items: f"[{','.join(items)}]",
    }
    return writers.get(type(value), str)(value)
