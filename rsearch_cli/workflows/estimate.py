"""The memory plan as commands use it: shown by `rsearch estimate`, asked by `rsearch train`.

Place in the path: a step of these two commands, over `memory`. On failure: a run that cannot fit
raises `DoesNotFit`; a model whose config is not at hand is told of, and not planned for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from rsearch_cli.errors import DoesNotFit, PolicyError
from rsearch_cli.memory.card import find_vram
from rsearch_cli.memory.components import GIB
from rsearch_cli.memory.driver import explain_unused_card, torch_sees_gpu
from rsearch_cli.memory.prediction import MemoryPrediction, plan_memory
from rsearch_cli.memory.shape import find_shape
from rsearch_cli.memory.suggestions import Suggestion, list_knobs
from rsearch_cli.memory.workload import Backend
from rsearch_cli.policy.loading import choose_backend
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.streams import echo

logger = logging.getLogger(__name__)

_LABELS = {
    "weights": "weights",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "dequantised": "a dequantised weight",
    "kv_cache": "KV cache",
    "prefill": "reading contexts",
    "layer_inputs": "inputs of the layers",
    "logits": "logits and their loss",
    "layer_recomputed": "a layer, recomputed",
    "cuda": "CUDA itself",
    "slack": "slack of the allocator",
}
_SUGGESTED = 3


@dataclass(frozen=True, slots=True)
class PlannedMemory:
    """A memory plan with the card it is meant for.

    Attributes:
        plan: The plan.
        knobs: What would make it smaller.
        vram_gb: Memory of the card in GB, or None if no card is known.
    """

    plan: MemoryPrediction
    suggestions: list[Suggestion]
    vram_gb: float | None

    @property
    def fits(self) -> bool | None:
        """Whether the card holds it; None without a card."""
        return None if self.vram_gb is None else self.plan.fits(self.vram_gb)


def plan_for(recipe: Recipe, backend: Backend, vram_gb: float | None) -> PlannedMemory:
    """Plan a recipe's memory.

    Raises:
        PolicyError: The model's config is not at hand, or of no kind that can be planned for.
    """
    shape = find_shape(locate_model(recipe.policy.model))
    plan = plan_memory(shape, recipe, backend)
    return PlannedMemory(plan, list_knobs(shape, recipe, backend), vram_gb)


def presumed_backend(recipe: Recipe) -> Backend:
    """The back end of a run on CUDA; there `auto` is Unsloth, which comes with rsearch."""
    return "unsloth" if recipe.policy.backend == "auto" else recipe.policy.backend


def describe_memory(planned: PlannedMemory) -> dict[str, Any]:
    """The plan as JSON has it; sizes in GB of 2^30 bytes."""
    plan = planned.plan
    return {
        "fits": planned.fits,
        "total_gb": round(plan.total_gb, 2),
        "vram_gb": planned.vram_gb,
        "peak": plan.peak,
        "backend": plan.load.backend,
        "row_tokens": plan.load.row.total,
        "parts": {
            part.name: {"gb": round(part.size / GIB, 3), "phases": list(part.phases)}
            for part in plan.parts
        },
        "knobs": [
            {
                "set": list(suggestion.settings),
                "saves_gb": round(suggestion.saves_gb, 2),
                "total_gb": round(suggestion.total_gb, 2),
            }
            for suggestion in planned.suggestions
        ],
    }


def memory_lines(planned: PlannedMemory) -> list[str]:
    """The plan as text, a line a part; the comments of shipped recipes hold the same lines."""
    plan = planned.plan
    lines = [
        f"{_LABELS[part.name]:<24}{part.size / GIB:6.2f}  {' and '.join(part.phases)}"
        for part in plan.parts
    ]
    verdict = "" if planned.fits is None else f"; {_verdict(planned)} {planned.vram_gb:g} GB"
    return [*lines, f"{'GB at the peak':<24}{plan.total_gb:6.2f}  in {plan.peak}{verdict}"]


def print_memory(planned: PlannedMemory) -> None:
    """Print the plan and its knobs."""
    load = planned.plan.load
    echo(
        "",
        f"MEMORY of each CUDA card, in GB, with {load.backend}, for rows of {load.row.total} "
        "tokens,",
        f"{load.rollout_rows} at once in a rollout and {load.update_rows} in an update; rollout, "
        "loss and backward take turns",
        *memory_lines(planned),
    )
    if planned.vram_gb is None:
        echo("no card is seen here; --vram GB says what to compare with")
    for suggestion in planned.suggestions:
        echo(f"  {suggestion}: {suggestion.saves_gb:.2f} GB less, {suggestion.total_gb:.2f}")


def check_memory(recipe: Recipe, *, force: bool) -> None:
    """Refuse a run that this machine's card cannot hold; without a card, say nothing.

    Raises:
        DoesNotFit: It cannot, and `force` is not given.
        PolicyError: The model's folder does not exist, or the back end cannot run here.
    """
    _require_gpu(recipe, force=force)
    vram_gb = find_vram()
    if vram_gb is None:
        return
    locate_model(recipe.policy.model)
    unsloth = choose_backend(recipe.policy.backend)[0] == "unsloth"
    backend: Backend = "unsloth" if unsloth else "transformers"
    try:
        planned = plan_for(recipe, backend, vram_gb)
    except PolicyError as unknown:
        logger.warning(f"going on without a memory plan: {unknown}")
        return
    if planned.fits:
        return
    message = _refusal(planned)
    if not force:
        raise DoesNotFit(f"{message}; or go on anyway with --force")
    logger.warning(f"going on by --force: {message}")


def _require_gpu(recipe: Recipe, *, force: bool) -> None:
    """Refuse to train on the CPU what is meant for a GPU: in 32 bits it would take weeks.

    Raises:
        DoesNotFit: There is a card that torch cannot use, or the recipe asks for 4-bit weights and
            there is no GPU; and `force` is not given.
    """
    unused = explain_unused_card()
    problem = str(unused) if unused else None
    if problem is None and recipe.policy.load_in_4bit and not torch_sees_gpu():
        problem = (
            f"the recipe trains {recipe.policy.model} in 4 bits, which is for a GPU, and torch "
            "finds none; `rsearch doctor` says why"
        )
    if problem is None:
        return
    if not force:
        raise DoesNotFit(f"{problem}; or train on the CPU with --force")
    logger.warning(f"training on the CPU because of --force: {problem}")


def _verdict(planned: PlannedMemory) -> str:
    return "fits in" if planned.fits else "does not fit in"


def _refusal(planned: PlannedMemory) -> str:
    """What does not fit, and the settings that would change most, those that suffice first."""
    vram_gb = planned.vram_gb or 0.0
    suggested = sorted(planned.suggestions, key=lambda suggestion: suggestion.total_gb > vram_gb)[
        :_SUGGESTED
    ]
    hints = ", ".join(f"{suggestion} ({suggestion.total_gb:.1f} GB)" for suggestion in suggested)
    plan = planned.plan
    return (
        f"the run takes {plan.total_gb:.1f} GB in its {plan.peak}, by plan, and the card has "
        f"{vram_gb:.1f} GB; try {hints or 'a smaller model'}"
    )
