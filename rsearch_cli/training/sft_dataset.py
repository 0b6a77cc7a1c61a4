"""The traces that a supervised run trains on.

A resumed run takes them from its own folder, so that it does not depend on their origin any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsearch_cli.distributed import fail_together, gather, is_main
from rsearch_cli.errors import BudgetExceeded, DataEmpty
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.questions.world import open_world
from rsearch_cli.recipe.addresses import hide_login
from rsearch_cli.recipe.schema import Recipe, SourceConfig
from rsearch_cli.recipe.training import GOLD_TITLES, TEACHER, WORLD
from rsearch_cli.rollout.state import Executor
from rsearch_cli.runs.files import TRACE_STATS, TRACES
from rsearch_cli.runs.run_folder import RunFolder
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.search.sources import open_sources
from rsearch_cli.services.runtime import Services
from rsearch_cli.training.gold_traces import write_gold_traces
from rsearch_cli.training.stored_traces import choose_traces
from rsearch_cli.training.teacher_traces import Teacher, sample_traces
from rsearch_cli.training.traces import Example, Trace, TraceStats, encode_traces
from rsearch_cli.training.world_traces import write_world_traces
from rsearch_cli.types import Question


@dataclass(slots=True)
class SftDataset:
    """The traces of a supervised run.

    Attributes:
        traces: The transcripts.
        stats: How many traces were accepted, and why the others were rejected.
        examples: The encoded traces in the same order; empty before `encode`.
    """

    traces: list[Trace]
    stats: TraceStats
    examples: list[Example] = field(default_factory=list)

    def encode(self, chat_tokenizer: ChatTokenizer, recipe: Recipe) -> None:
        """Encode the traces and drop those that the policy could not have written.

        Raises:
            DataEmpty: No trace is left.
        """
        encoded = encode_traces(self.traces, chat_tokenizer, recipe, self.stats)
        self.traces = [trace for trace, _ in encoded]
        self.examples = [example for _, example in encoded]

    def summarise(self, recipe: Recipe) -> dict[str, Any]:
        """Return the counts for `summary.json`, and the teacher, if there was one."""
        teacher = recipe.sft.teacher
        named = {"teacher": {"model": teacher.model, "url": hide_login(teacher.url or "")}}
        return {**self.stats.as_row(), **(named if recipe.sft.traces == TEACHER else {})}

    def store(self, folder: RunFolder) -> None:
        """Write the statistics and the traces to the run folder, the traces last."""
        folder.write_json(TRACE_STATS, self.stats.as_row())
        folder.write_rows(TRACES, (trace.as_row() for trace in self.traces))


def build_sft_dataset(
    recipe: Recipe,
    trained: Sequence[Question],
    evaluated: Sequence[Question],
    executor: Executor,
    services: Services,
    folder: RunFolder,
    *,
    resume: bool,
    begin: Callable[[], None],
) -> SftDataset:
    """Collect the traces that `sft.traces` asks for.

    Args:
        recipe: Its questions, protocol, search, rollout and sft sections are read.
        trained: Questions of the training split.
        evaluated: Questions to leave out.
        executor: Searches the sources of the recipe, for traces of its own questions.
        services: The run's services; for traces of the world, only local sources are searched.
        folder: The run folder.
        resume: Take the traces stored in the run folder.
        begin: Opens the run folder; called before anything that should be kept is paid for.

    Raises:
        DataError: There is no trace to train on, or the file cannot be read.
        FailureShareExceeded: Too many requests or searches failed.
    """
    if resume and (rows := folder.read_rows(TRACES)):
        with folder.reading(TRACE_STATS):
            stats = TraceStats.from_row(folder.read_json(TRACE_STATS))
        with folder.reading(TRACES):
            return SftDataset([Trace.from_row(row) for row in rows], stats)
    held_out = {question.text for question in evaluated}
    if recipe.sft.traces == GOLD_TITLES:
        asked = [question for question in trained if question.text not in held_out]
        return _written_once(lambda: _search_titles(recipe, asked, executor, begin))
    if recipe.sft.traces == TEACHER:
        asked = [q for q in trained if q.answers and q.text not in held_out]
        if not asked:
            raise DataEmpty(
                "sft.traces teacher: no question to ask; all training questions are evaluated, "
                "too, or have no answer to compare with (questions.train_split, evaluate.split)"
            )
        return _written_once(
            lambda: _ask_teacher(recipe, asked, executor, services, folder, resume, begin)
        )
    if recipe.sft.traces != WORLD:
        return SftDataset(*choose_traces(recipe, held_out))
    return _write_from_world(recipe, held_out, services)


def _written_once(write: Callable[[], tuple[list[Trace], TraceStats]]) -> SftDataset:
    """Traces that the main process writes and all get: what is searched may cost, fail or vary."""
    found: tuple[list[Trace], TraceStats] | None = None
    with fail_together():
        if is_main():
            found = write()
    traces, stats = gather(found)[0] or ([], TraceStats())
    return SftDataset(traces, stats)


def _search_titles(
    recipe: Recipe, questions: Sequence[Question], executor: Executor, begin: Callable[[], None]
) -> tuple[list[Trace], TraceStats]:
    try:
        return write_gold_traces(questions, executor, recipe)
    except BudgetExceeded:
        begin()  # there is a run to resume: what it has paid for is in the cache
        raise


def _ask_teacher(
    recipe: Recipe,
    questions: Sequence[Question],
    executor: Executor,
    services: Services,
    folder: RunFolder,
    resume: bool,
    begin: Callable[[], None],
) -> tuple[list[Trace], TraceStats]:
    with Teacher(recipe, executor, services) as teacher:
        if not resume:
            teacher.start()  # before there is a run in the folder
        begin()
        return sample_traces(teacher, questions, recipe, folder, services.budget.snapshot)


def _write_from_world(recipe: Recipe, held_out: set[str], services: Services) -> SftDataset:
    """Traces of the fictional world, searched in its own corpus whatever set is evaluated."""
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
