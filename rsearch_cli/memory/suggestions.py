"""Settings that reduce the memory of a run, and by how much.

Each suggestion is the prediction for the same recipe with one thing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rsearch_cli.memory.components import Card
from rsearch_cli.memory.prediction import predict_memory
from rsearch_cli.memory.shape import MLP, ModelShape, adapted_modules
from rsearch_cli.memory.workload import Backend, longest_row
from rsearch_cli.recipe.schema import Recipe

LEAST_GB = 0.05
"""Suggestions that save less are omitted."""

_ROUND = 128


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One change to a recipe.

    Attributes:
        settings: Arguments of `--set`.
        saves_gb: Memory saved by this change alone, in GB.
        total_gb: Memory of the run with this change alone, in GB.
    """

    settings: tuple[str, ...]
    saves_gb: float
    total_gb: float

    def __str__(self) -> str:
        return " ".join(f"--set {setting}" for setting in self.settings)


def suggest_settings(
    shape: ModelShape, recipe: Recipe, backend: Backend, card: Card | None = None
) -> list[Suggestion]:
    """Return all changes that reduce the memory of a run, the most effective first.

    Args:
        shape: The model's dimensions.
        recipe: The current recipe.
        backend: The back end of the policy.
        card: The card that trains; None knows nothing about it.
    """
    now = predict_memory(shape, recipe, backend, card=card).total_gb
    suggestions = []
    for change in _changes(recipe):
        changed = _apply(recipe, change)
        chosen = changed.policy.backend
        other = backend if chosen == "auto" else chosen
        planned = predict_memory(shape, changed, other, card=card)
        if card and card.vram_gb and planned.lacks_share(card.vram_gb):
            continue
        settings = tuple(f"{key}={_write(value)}" for key, value in change.items())
        suggestions.append(Suggestion(settings, now - planned.total_gb, planned.total_gb))
    return sorted(
        (suggestion for suggestion in suggestions if suggestion.saves_gb >= LEAST_GB),
        key=lambda suggestion: -suggestion.saves_gb,
    )


def _changes(recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Yield dotted keys with new values: halved numbers and flipped switches."""
    policy, rollout, train, lora = recipe.policy, recipe.rollout, recipe.train, recipe.policy.lora
    if rollout.micro_batch > 1:
        yield {"rollout.micro_batch": rollout.micro_batch // 2}
    row = longest_row(recipe).total
    if rollout.engine == "vllm":
        yield {"rollout.vllm_memory_share": round(rollout.vllm_memory_share / 2, 2)}
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
        # The number of rows per step stays the same, and so does the training.
        yield {
            "train.batch_size": train.batch_size // 2,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps * 2,
        }


def _apply(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    for dotted, value in change.items():
        recipe = _replace(recipe, dotted.split("."), value)
    return recipe


def _replace(section: Any, keys: list[str], value: Any) -> Any:
    """Return a copy of a section with one nested value changed."""
    first, *rest = keys
    inner = _replace(getattr(section, first), rest, value) if rest else value
    return section.model_copy(update={first: inner})


def _write(value: Any) -> str:
    """Format a value for `--set`, without spaces."""
    writers: Mapping[type, Callable[[Any], str]] = {
        bool: lambda flag: str(flag).lower(),
        list: lambda items: f"[{','.join(items)}]",
    }
    return writers.get(type(value), str)(value)
