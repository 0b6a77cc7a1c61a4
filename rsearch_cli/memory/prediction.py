"""Predicts the peak GPU memory of a training run, in GB of 2^30 bytes."""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.memory.components import ALWAYS, GIB, PHASES, SLACK, Component, list_components
from rsearch_cli.memory.shape import ModelShape
from rsearch_cli.memory.workload import Backend, Row, Workload, describe_workload
from rsearch_cli.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """The predicted memory, component by component.

    Attributes:
        workload: The dimensions that the sizes are computed from.
        components: All components, including the allocator's slack.
    """

    workload: Workload
    components: tuple[Component, ...]

    def phase_gb(self, phase: str) -> float:
        """Return the memory in one of `PHASES`, in GB."""
        sizes = (c.size for c in self.components if {ALWAYS, phase} & set(c.phases))
        return sum(sizes) / GIB

    @property
    def peak(self) -> str:
        """The phase with the most memory."""
        return max(PHASES, key=self.phase_gb)

    @property
    def total_gb(self) -> float:
        """The peak memory in GB."""
        return self.phase_gb(self.peak)

    def fits(self, vram_gb: float) -> bool:
        """Whether the run fits on a card of `vram_gb` GB."""
        return self.total_gb <= vram_gb

    def size_gb(self, name: str) -> float:
        """Return the size of one component in GB."""
        return sum(c.size for c in self.components if c.name == name) / GIB


def predict_memory(
    shape: ModelShape, recipe: Recipe, backend: Backend, row: Row | None = None
) -> MemoryPrediction:
    """Predict the memory that `rsearch train` needs on each card.

    Args:
        shape: The model's dimensions.
        recipe: See `describe_workload` for the sections that are read.
        backend: The back end of the policy.
        row: Length of the longest row if it is known; None derives it from the recipe.

    Raises:
        PolicyError: The adapter is on a module that the formulas do not cover.
    """
    workload = describe_workload(recipe, backend, row)
    components = list_components(shape, workload, recipe.policy.lora)
    bare = MemoryPrediction(workload, components)
    slack = (bare.total_gb - bare.size_gb("cuda")) * GIB * SLACK
    return MemoryPrediction(workload, (*components, Component("slack", slack, (ALWAYS,))))
