"""Traces whose plan a teacher wrote beforehand: the searches are executed, the evidence is checked.

A trace whose results lack evidence is rejected: its answer could only be memorised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rsearch_cli.evaluation.failed_share import Failures, check_failed_share
from rsearch_cli.protocol.plan import read_plan, render_plan
from rsearch_cli.protocol.results import render_invalid_plan, render_results
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.state import Executor
from rsearch_cli.training.traces import SEARCH_FAILED, Trace, TraceStats, require_traces
from rsearch_cli.types import NodeResult, Question, SearchPlan, Segment

ONE_HOP = "I look up one fact."
TWO_HOPS = "I look up a first fact, then a second one."
THREE_HOPS = "I look up a first fact, then a second one, then a third one."
MORE_HOPS = "I look up one fact after the other."
COMPARISON = "I look up two facts and compare them."
MORE_FACTS = "I look up several facts and compare them."
CHAINS = "I look up several facts, then what follows from them, and compare."

EVIDENCE_MISSED = "without the evidence in the results"
PLAN_REFUSED = "with a plan that the recipe's protocol refuses"

_BATCH = 256  # questions whose plans are executed together


@dataclass(frozen=True, slots=True)
class TeacherTurn:
    """What the teacher writes before the search: a thought and the text of a plan."""

    thought: str
    plan: str
    template: str = "<think> {thought} </think>\n<search>\n{plan}\n</search>"

    @classmethod
    def of(cls, plan: SearchPlan) -> TeacherTurn:
        """Return a plan in the canonical form with a thought that fits it."""
        return cls(_think(plan), render_plan(plan))

    @property
    def text(self) -> str:
        """The transcript up to the search."""
        return self.template.format(thought=self.thought, plan=self.plan)


class NoPlan(ValueError):
    """The teacher has no plan for a question; the message completes "N of M traces rejected: "."""


WriteTurn = Callable[[Question], TeacherTurn]
"""Writes the turn for a question, or raises `NoPlan`."""

EvidenceCheck = Callable[[Question, Sequence[NodeResult]], bool]
"""Whether the results, one per node of the plan, hold the evidence for a question."""


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


def finish_trace(question: Question, turn: TeacherTurn, block: str, answer: str | None) -> Trace:
    """Join the teacher's turn, the results and the answer, if there is one."""
    searched = (Segment(turn.text, (), "model"), Segment(block, (), "system"))
    if answer is None:
        return Trace(question, searched)
    return Trace(question, (*searched, Segment(f"<answer> {answer} </answer>", (), "model")))


def write_traces(
    questions: Sequence[Question],
    write_turn: WriteTurn,
    holds_evidence: EvidenceCheck,
    executor: Executor,
    recipe: Recipe,
) -> tuple[list[Trace], TraceStats]:
    """Write traces for questions in order, at most `sft.max_traces`.

    Args:
        questions: The questions. The trace of one without a reference answer ends after the
            results.
        write_turn: The teacher.
        holds_evidence: Decides which results a trace is kept for.
        executor: Searches the corpus that the questions are about.
        recipe: Its protocol, search and sft sections are read.

    Returns:
        The traces, in the order of the questions, and the counts of accepted and rejected ones.

    Raises:
        DataEmpty: No trace is left.
        FailureShareExceeded: More than `budget.max_failed_share` of the searches failed.
    """
    traces: list[Trace] = []
    stats = TraceStats()
    sent, errors = 0, list[str]()
    most = recipe.sft.max_traces or len(questions)
    waiting = deque(questions)
    while waiting and len(traces) < most:
        count = min(_BATCH, most - len(traces), len(waiting))
        planned: list[tuple[Question, TeacherTurn]] = []
        for question in (waiting.popleft() for _ in range(count)):
            stats.taken += 1
            try:
                planned.append((question, write_turn(question)))
            except NoPlan as reason:
                stats.reject(str(reason))
        searched = execute_plans([turn for _, turn in planned], executor, recipe)
        for (question, turn), (block, results) in zip(planned, searched, strict=True):
            failed = [result.error for result in results if result.error is not None]
            sent += len(results)
            errors += failed
            if not results:
                stats.reject(PLAN_REFUSED)
            elif failed:
                stats.reject(SEARCH_FAILED)
            elif not holds_evidence(question, results):
                stats.reject(EVIDENCE_MISSED)
            else:
                answer = next(iter(question.answers), None)
                traces.append(finish_trace(question, turn, block, answer))
        searches = Failures("searches", len(errors), sent, errors[-1] if errors else None)
        check_failed_share([searches], recipe.budget.max_failed_share, "the traces")
    require_traces(traces, stats, recipe)
    return traces, stats


def _think(plan: SearchPlan) -> str:
    nodes, hops = len(plan.nodes), len(plan.waves())
    if hops == nodes:
        return {1: ONE_HOP, 2: TWO_HOPS, 3: THREE_HOPS}.get(hops, MORE_HOPS)
    if hops > 1:
        return CHAINS
    return COMPARISON if nodes == 2 else MORE_FACTS
