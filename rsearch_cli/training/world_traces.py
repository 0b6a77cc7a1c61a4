"""Traces of the fictional world, with plans by a teacher that knows its relations."""

from __future__ import annotations

from collections.abc import Sequence

from rsearch_cli.questions.world import gold_evidence, gold_plan
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.state import Executor
from rsearch_cli.training.planned_traces import TeacherTurn, write_traces
from rsearch_cli.training.traces import Trace, TraceStats
from rsearch_cli.types import NodeResult, Question


def write_turn(question: Question) -> TeacherTurn:
    """Return the gold plan of a world question with a matching thought."""
    return TeacherTurn.of(gold_plan(question))


def write_world_traces(
    questions: Sequence[Question], executor: Executor, recipe: Recipe
) -> tuple[list[Trace], TraceStats]:
    """Write traces for world questions; see `write_traces`.

    Args:
        questions: Questions of the fictional world.
        executor: Searches the world's corpus.
        recipe: Its protocol, search and sft sections are read.

    Raises:
        DataEmpty: No trace is left.
    """
    return write_traces(questions, write_turn, _has_evidence, executor, recipe)


def _has_evidence(question: Question, results: Sequence[NodeResult]) -> bool:
    """Whether every node found the passage with its fact."""
    found = [{passage.id for passage in result.passages} for result in results]
    evidence = gold_evidence(question)
    return len(found) == len(evidence) and all(map(set.__contains__, found, evidence))
