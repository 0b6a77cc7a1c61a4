"""Predicts the peak GPU memory of a run, and whether a card has it.

Sizes are in GB of 2^30 bytes, as nvidia-smi and torch count them. Raises `PolicyError` if the model
or its adapter is not known well enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.memory.components import ALWAYS, GIB, PHASES, SLACK, Component, list_parts
from rsearch_cli.memory.shape import ModelShape
from rsearch_cli.memory.workload import Backend, Row, Workload, describe_load
from rsearch_cli.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """What lies on the card, and when.

    Attributes:
        load: What the sizes follow from.
        parts: All of them, the allocator's slack included.
    """

    load: Workload
    parts: tuple[Component, ...]

    def phase_gb(self, phase: str) -> float:
        """Everything that lies there in one of `PHASES`, in GB."""
        here = (part.size for part in self.parts if {ALWAYS, phase} & set(part.phases))
        return sum(here) / GIB

    @property
    def peak(self) -> str:
        """The phase that takes the most."""
        return max(PHASES, key=self.phase_gb)

    @property
    def total_gb(self) -> float:
        """The most that lies there at once, in GB."""
        return self.phase_gb(self.peak)

    def fits(self, vram_gb: float) -> bool:
        """Whether a card of so many GB holds it."""
        return self.total_gb <= vram_gb

    def part_gb(self, name: str) -> float:
        """Size of one part, in GB."""
        return sum(part.size for part in self.parts if part.name == name) / GIB


def plan_memory(
    shape: ModelShape, recipe: Recipe, backend: Backend, row: Row | None = None
) -> MemoryPrediction:
    """Work out what `rsearch train` will take of each card.

    Args:
        shape: The model's dimensions.
        recipe: See `describe_load` for what is read.
        backend: What will run the weights.
        row: Length of the longest row, where it is known better than from the recipe.

    Raises:
        PolicyError: The adapter sits on a module that the formulas do not know.
    """
    load = describe_load(recipe, backend, row)
    parts = list_parts(shape, load, recipe.policy.lora)
    bare = MemoryPrediction(load, parts)
    slack = (bare.total_gb - bare.part_gb("cuda")) * GIB * SLACK
    return MemoryPrediction(load, (*parts, Component("slack", slack, (ALWAYS,))))
