"""Traces of questions whose supporting titles are known, where no teacher model is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rsearch_cli.errors import DataEmpty
from rsearch_cli.recipe.schema import ProtocolConfig, Recipe
from rsearch_cli.reward.retrieval import find_titles
from rsearch_cli.rollout.state import Executor
from rsearch_cli.training.gold_plans import write_plan
from rsearch_cli.training.planned_traces import TeacherTurn, write_traces
from rsearch_cli.training.traces import Trace, TraceStats
from rsearch_cli.types import NodeResult, Question


def write_gold_traces(
    questions: Sequence[Question], executor: Executor, recipe: Recipe
) -> tuple[list[Trace], TraceStats]:
    """Write traces for questions with supporting titles; see `write_plan` and `write_traces`.

    A trace is kept if its results hold all supporting titles.

    Args:
        questions: Training questions; those without supporting titles are rejected.
        executor: Searches the sources of the recipe.
        recipe: Its protocol, search and sft sections are read.

    Raises:
        DataEmpty: No question has supporting titles, or no trace is left.
    """
    if not any(question.supporting_titles for question in questions):
        raise DataEmpty(
            f"sft.traces gold_titles: none of the {len(questions)} training questions has "
            "supporting titles ('supporting_titles' or 'supporting_facts', see docs/data.md)"
        )
    write_turn = partial(_write_turn, rules=recipe.protocol)
    return write_traces(questions, write_turn, _has_all_titles, executor, recipe)


def _write_turn(question: Question, rules: ProtocolConfig) -> TeacherTurn:
    return TeacherTurn.of(write_plan(question, rules))


def _has_all_titles(question: Question, results: Sequence[NodeResult]) -> bool:
    return find_titles(question.supporting_titles, results) == 1.0
