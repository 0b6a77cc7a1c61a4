"""Predicts the peak GPU memory of a training run, in GB of 2^30 bytes."""

from __future__ import annotations

from dataclasses import dataclass

from rsearch_cli.memory.components import (
    ALWAYS,
    PHASES,
    SLACK,
    Card,
    Component,
    engine_bytes,
    list_components,
)
from rsearch_cli.memory.shape import ModelShape
from rsearch_cli.memory.units import GIB
from rsearch_cli.memory.workload import Backend, Row, Workload, describe_workload
from rsearch_cli.recipe.schema import Recipe

VLLM_ENGINES = ("vllm", "vllm-server")
UNMANAGED = ("cuda", "vllm", "vllm_server")


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """The predicted memory, component by component.

    Attributes:
        workload: The dimensions that the sizes are computed from.
        components: All components, including the allocator's slack.
        engine_gb: Memory that vLLM needs, on this card or another, for all rows of a rollout at
            once; None if the training model generates.
        engine_least_gb: The same for a single row, with which it can start.
    """

    workload: Workload
    components: tuple[Component, ...]
    engine_gb: float | None = None
    engine_least_gb: float | None = None

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
        return self.total_gb <= vram_gb and not self.lacks_share(vram_gb)

    def lacks_share(self, vram_gb: float) -> bool:
        """Whether vLLM's share of a card of `vram_gb` GB holds not even a single row."""
        if self.workload.engine != "vllm" or self.engine_least_gb is None:
            return False
        return self.workload.vllm_share * vram_gb < self.engine_least_gb

    def size_gb(self, name: str) -> float:
        """Return the size of one component in GB."""
        return sum(c.size for c in self.components if c.name == name) / GIB


def predict_memory(
    shape: ModelShape,
    recipe: Recipe,
    backend: Backend,
    row: Row | None = None,
    card: Card | None = None,
) -> MemoryPrediction:
    """Predict the memory that `rsearch train` needs on each card.

    Args:
        shape: The model's dimensions.
        recipe: See `describe_workload` for the sections that are read.
        backend: The back end of the policy.
        row: Length of the longest row if it is known; None derives it from the recipe.
        card: The card that trains; None knows nothing about it.

    Raises:
        PolicyError: The adapter is on a module that the formulas do not cover.
    """
    workload = describe_workload(recipe, backend, row)
    components = list_components(shape, workload, recipe.policy.lora, card or Card())
    bare = MemoryPrediction(workload, components)
    # What the allocator of this process does not manage has no slack of its own.
    own = bare.total_gb - sum(bare.size_gb(name) for name in UNMANAGED)
    slack = Component("slack", own * GIB * SLACK, (ALWAYS,))
    everything = (*components, slack)
    if workload.engine not in VLLM_ENGINES:
        return MemoryPrediction(workload, everything)
    needs = (engine_bytes(shape, workload, rows) / GIB for rows in (None, 1))
    return MemoryPrediction(workload, everything, *needs)
