"""The part of `rsearch train` that is its own in the stage `sft`: traces found, then learnt.

Place in the path: `training` gathers and encodes traces here before the model is loaded, and learns
them between its two evaluations. On failure: as in the modules that are called; a run that is
resumed takes the traces from its own folder, whatever has become of their origin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsearch_cli.distributed import gather
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.questions.world import open_world
from rsearch_cli.recipe.schema import Recipe, SourceConfig
from rsearch_cli.runs.files import TRACE_STATS, TRACES
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import Services
from rsearch_cli.training.interrupts import Interrupts
from rsearch_cli.training.sft import SftTraining, count_steps
from rsearch_cli.training.stored_traces import choose_traces
from rsearch_cli.training.traces import Example, Trace, TraceStats, encode_traces
from rsearch_cli.training.world_traces import write_world_traces
from rsearch_cli.types import Question
from rsearch_cli.ui.training_display import TrainingDisplay

WORLD = "world"


@dataclass(slots=True)
class SftDataset:
    """What a cold start learns.

    Attributes:
        traces: The transcripts.
        trace_stats: How many were taken, and why the others were not.
        examples: The traces in numbers, in the same order; empty before `encode`.
    """

    traces: list[Trace]
    trace_stats: TraceStats
    examples: list[Example] = field(default_factory=list)

    def encode(self, chat_tokenizer: ChatTokenizer, recipe: Recipe) -> None:
        """Encode the traces, and leave those out that the policy could not have written.

        Raises:
            DataEmpty: None is left.
        """
        encoded = encode_traces(self.traces, chat_tokenizer, recipe, self.trace_stats)
        self.traces = [trace for trace, _ in encoded]
        self.examples = [example for _, example in encoded]

    def store(self, folder: RunFolder) -> None:
        """Keep them in the run folder; the traces come last, so that they are never alone."""
        folder.write_json(TRACE_STATS, self.trace_stats.as_row())
        folder.write_rows(TRACES, (trace.as_row() for trace in self.traces))


def build_sft_dataset(
    recipe: Recipe,
    evaluated: Sequence[Question],
    services: Services,
    folder: RunFolder,
    *,
    resume: bool,
) -> SftDataset:
    """Find the traces that the recipe asks for.

    Args:
        recipe: Its questions, protocol, search, rollout and sft sections are read.
        evaluated: Questions that must not be learnt.
        services: Of the run; only local searches are made.
        folder: Of the run.
        resume: Take the traces that the run began with.

    Raises:
        DataError: There is no trace to learn from, or the file cannot be read.
    """
    if resume and (rows := folder.read_rows(TRACES)):
        with folder.reading(TRACE_STATS):
            trace_stats = TraceStats(len(rows), Counter(folder.read_json(TRACE_STATS)["rejected"]))
        with folder.reading(TRACES):
            return SftDataset([Trace.from_row(row) for row in rows], trace_stats)
    held_out = {question.text for question in evaluated}
    if recipe.sft.traces != WORLD:
        return SftDataset(*choose_traces(recipe, held_out))
    return _ask_teacher(recipe, held_out, services)


def learn(
    policy: LocalPolicy,
    sft_dataset: SftDataset,
    recipe: Recipe,
    folder: RunFolder,
    checkpoint: Path | None,
    signals: Interrupts,
) -> int:
    """Learn under the live display, from a checkpoint where there is one.

    Returns:
        The optimiser steps of the whole run.
    """
    steps = count_steps(len(sft_dataset.examples), recipe.sft)
    with TrainingDisplay(steps) as display, signals.patiently(display.status):

        def show(row: dict[str, Any]) -> None:
            display.update(row, None)

        training = SftTraining(
            policy,
            sft_dataset.examples,
            recipe,
            folder,
            show,
            lambda: any(gather(signals.received)),
        )
        training.run(checkpoint)
    return steps


def _ask_teacher(recipe: Recipe, held_out: set[str], services: Services) -> SftDataset:
    """Traces of the world, whatever set the run is evaluated on, searched in its own corpus."""
    questions, split = recipe.questions, recipe.questions.train_split
    if questions.source != WORLD:
        questions, split = questions.model_copy(update={"difficulty": None}), "train"
    world = open_world(questions, recipe.seed)
    local = {name: SourceConfig() for name in recipe.search.sources}
    search = recipe.search.model_copy(update={"sources": local})
    asked = [question for question in world.load(split) if question.text not in held_out]
    sources = open_sources(search, world.corpus)
    with PlanExecutor(sources, search, services) as executor:
        return SftDataset(*write_world_traces(asked, executor, recipe))
