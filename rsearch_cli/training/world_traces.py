"""Traces of the fictional world, with plans by a teacher that knows its relations.

The teacher writes only the plan and a short thought. The searches are executed, so that the traces
contain real results, and a trace whose results lack evidence is rejected: its answer could only be
memorised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rsearch_cli.protocol.plan import read_plan, render_plan
from rsearch_cli.protocol.results import render_invalid_plan, render_results
from rsearch_cli.questions.world import gold_evidence, gold_plan
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.state import Executor
from rsearch_cli.training.traces import Trace, TraceStats, require_traces
from rsearch_cli.types import NodeResult, Question, SearchPlan, Segment

ONE_HOP = "I look up one fact."
TWO_HOPS = "I look up a first fact, then a second one."
THREE_HOPS = "I look up a first fact, then a second one, then a third one."
COMPARISON = "I look up two facts and compare them."

EVIDENCE_MISSED = "without the evidence in the results"
PLAN_REFUSED = "with a plan that the recipe's protocol refuses"

_BATCH = 256  # questions whose plans are executed together


@dataclass(frozen=True, slots=True)
class TeacherTurn:
    """What the teacher writes before the search: a thought and the text of a plan."""

    thought: str
    plan: str
    template: str = "<think> {thought} </think>\n<search>\n{plan}\n</search>"

    @property
    def text(self) -> str:
        """The transcript up to the search."""
        return self.template.format(thought=self.thought, plan=self.plan)


def write_turn(question: Question) -> TeacherTurn:
    """Return the gold plan of a world question with a matching thought."""
    plan = gold_plan(question)
    return TeacherTurn(_think(plan), render_plan(plan))


def execute_plans(
    turns: Sequence[TeacherTurn], executor: Executor, recipe: Recipe
) -> Iterator[tuple[str, tuple[NodeResult, ...]]]:
    """Execute the plans of the teacher.

    Yields:
        For each turn the block to insert and the results of its nodes, () for an invalid plan.
    """
    readings = [read_plan(turn.plan, recipe.protocol) for turn in turns]
    found = iter(executor.execute([r.plan for r in readings if r.plan is not None]))
    for reading in readings:
        if reading.plan is None:
            yield render_invalid_plan(reading.problems, recipe.protocol), ()
        else:
            results = next(found)
            yield render_results(results, recipe.protocol, recipe.search.passage_chars), results


def finish_trace(question: Question, turn: TeacherTurn, block: str, answer: str) -> Trace:
    """Join the teacher's turn, the results and the answer."""
    segments = (
        Segment(turn.text, (), "model"),
        Segment(block, (), "system"),
        Segment(f"<answer> {answer} </answer>", (), "model"),
    )
    return Trace(question, segments)


def write_world_traces(
    questions: Sequence[Question], executor: Executor, recipe: Recipe
) -> tuple[list[Trace], TraceStats]:
    """Write traces for world questions, at most `sft.max_traces`.

    Args:
        questions: Questions of the fictional world.
        executor: Searches the world's corpus.
        recipe: Its protocol, search and sft sections are read.

    Returns:
        The traces, in the order of the questions, and the counts of accepted and rejected ones.

    Raises:
        DataEmpty: No trace is left.
    """
    traces: list[Trace] = []
    stats = TraceStats()
    most = recipe.sft.max_traces or len(questions)
    waiting = deque(questions)
    while waiting and len(traces) < most:
        count = min(_BATCH, most - len(traces), len(waiting))
        batch = [waiting.popleft() for _ in range(count)]
        turns = [write_turn(question) for question in batch]
        searched = execute_plans(turns, executor, recipe)
        for question, turn, (block, results) in zip(batch, turns, searched, strict=True):
            stats.taken += 1
            if not _has_evidence(question, results):
                stats.reject(EVIDENCE_MISSED if results else PLAN_REFUSED)
                continue
            traces.append(finish_trace(question, turn, block, question.answers[0]))
    require_traces(traces, stats, recipe)
    return traces, stats


def _think(plan: SearchPlan) -> str:
    if len(plan.nodes) > 1 and not plan.edges:
        return COMPARISON
    return (ONE_HOP, TWO_HOPS, THREE_HOPS)[len(plan.nodes) - 1]


def _has_evidence(question: Question, results: Sequence[NodeResult]) -> bool:
    """Whether every node found the passage with its fact."""
    found = [{passage.id for passage in result.passages} for result in results]
    evidence = gold_evidence(question)
    return len(found) == len(evidence) and all(map(set.__contains__, found, evidence))
