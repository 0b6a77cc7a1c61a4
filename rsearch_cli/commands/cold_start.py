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

from rsearch_cli.policy.local import LocalPolicy
from rsearch_cli.policy.tokenizing import Tokenizing
from rsearch_cli.questions.world import open_world
from rsearch_cli.ranks import gather
from rsearch_cli.recipe.schema import Recipe, Source
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.open import Services
from rsearch_cli.train.display import TrainingDisplay
from rsearch_cli.train.run_folder import TALLY, TRACES, RunFolder
from rsearch_cli.train.sft import SftTraining, count_steps
from rsearch_cli.train.signals import StopSignals
from rsearch_cli.train.stored_traces import choose_traces
from rsearch_cli.train.traces import Example, Tally, Trace, encode_traces
from rsearch_cli.train.world_traces import write_world_traces
from rsearch_cli.types import Question

WORLD = "world"


@dataclass(slots=True)
class Lessons:
    """What a cold start learns.

    Attributes:
        traces: The transcripts.
        tally: How many were taken, and why the others were not.
        examples: The traces in numbers, in the same order; empty before `encode`.
    """

    traces: list[Trace]
    tally: Tally
    examples: list[Example] = field(default_factory=list)

    def encode(self, tokenizing: Tokenizing, recipe: Recipe) -> None:
        """Encode the traces, and leave those out that the policy could not have written.

        Raises:
            DataEmpty: None is left.
        """
        encoded = encode_traces(self.traces, tokenizing, recipe, self.tally)
        self.traces = [trace for trace, _ in encoded]
        self.examples = [example for _, example in encoded]

    def store(self, folder: RunFolder) -> None:
        """Keep them in the run folder; the traces come last, so that they are never alone."""
        folder.write_json(TALLY, self.tally.as_row())
        folder.write_rows(TRACES, (trace.as_row() for trace in self.traces))


def gather_lessons(
    recipe: Recipe,
    evaluated: Sequence[Question],
    services: Services,
    folder: RunFolder,
    *,
    resume: bool,
) -> Lessons:
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
        with folder.reading(TALLY):
            tally = Tally(len(rows), Counter(folder.read_json(TALLY)["rejected"]))
        with folder.reading(TRACES):
            return Lessons([Trace.from_row(row) for row in rows], tally)
    held_out = {question.text for question in evaluated}
    if recipe.sft.traces != WORLD:
        return Lessons(*choose_traces(recipe, held_out))
    return _ask_teacher(recipe, held_out, services)


def learn(
    policy: LocalPolicy,
    lessons: Lessons,
    recipe: Recipe,
    folder: RunFolder,
    checkpoint: Path | None,
    signals: StopSignals,
) -> int:
    """Learn under the live display, from a checkpoint where there is one.

    Returns:
        The optimiser steps of the whole run.
    """
    steps = count_steps(len(lessons.examples), recipe.sft)
    with TrainingDisplay(steps) as display, signals.patiently(display.status):

        def show(row: dict[str, Any]) -> None:
            display.update(row, None)

        training = SftTraining(
            policy, lessons.examples, recipe, folder, show, lambda: any(gather(signals.received))
        )
        training.run(checkpoint)
    return steps


def _ask_teacher(recipe: Recipe, held_out: set[str], services: Services) -> Lessons:
    """Traces of the world, whatever set the run is evaluated on, searched in its own corpus."""
    questions, split = recipe.questions, recipe.questions.train_split
    if questions.source != WORLD:
        questions, split = questions.model_copy(update={"difficulty": None}), "train"
    world = open_world(questions, recipe.seed)
    local = {name: Source() for name in recipe.search.sources}
    search = recipe.search.model_copy(update={"sources": local})
    asked = [question for question in world.load(split) if question.text not in held_out]
    sources = open_sources(search, world.corpus)
    with PlanExecutor(sources, search, services) as executor:
        return Lessons(*write_world_traces(asked, executor, recipe))
