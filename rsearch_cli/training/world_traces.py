"""Traces of the fictional world: a teacher that knows its relations writes the plans.

Place in the path: one of the two origins of traces for the cold start. Only the plan and a short
thought come from the teacher: searches are carried out for real, so that the model reads what it
will get to read. On failure: a trace whose searches did not bring all the evidence is left out and
counted, since its answer could only be learnt by heart.
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

_BATCH = 256  # questions whose searches are carried out at once


@dataclass(frozen=True, slots=True)
class Draft:
    """What a teacher writes before the search: a thought and the text of a plan."""

    thought: str
    plan: str
    template: str = "<think> {thought} </think>\n<search>\n{plan}\n</search>"

    @property
    def text(self) -> str:
        """All of it, up to the search."""
        return self.template.format(thought=self.thought, plan=self.plan)


def write_draft(question: Question) -> Draft:
    """The gold plan of a world question, with a thought that fits it."""
    plan = gold_plan(question)
    return Draft(_think(plan), render_plan(plan))


def carry_out(
    states: Sequence[Draft], executor: Executor, recipe: Recipe
) -> Iterator[tuple[str, tuple[NodeResult, ...]]]:
    """Search as the drafts say.

    Yields:
        For each draft the block to insert, and the results of its nodes, () for an invalid plan.
    """
    readings = [read_plan(state.plan, recipe.protocol) for state in states]
    found = iter(executor.execute([r.plan for r in readings if r.plan is not None]))
    for reading in readings:
        if reading.plan is None:
            yield render_invalid_plan(reading.problems, recipe.protocol), ()
        else:
            results = next(found)
            yield render_results(results, recipe.protocol, recipe.search.passage_chars), results


def finish_trace(question: Question, state: Draft, block: str, answer: str) -> Trace:
    """Put draft, results and answer together."""
    segments = (
        Segment(state.text, (), "model"),
        Segment(block, (), "system"),
        Segment(f"<answer> {answer} </answer>", (), "model"),
    )
    return Trace(question, segments)


def write_world_traces(
    questions: Sequence[Question], executor: Executor, recipe: Recipe
) -> tuple[list[Trace], TraceStats]:
    """Write the traces of world questions, up to `sft.max_traces` of them.

    Args:
        questions: Questions of the world.
        executor: Searches the world's corpus.
        recipe: Its protocol, search and sft sections are read.

    Returns:
        The traces, in the order of the questions, and how many were taken and left out.

    Raises:
        DataEmpty: No trace is left.
    """
    traces: list[Trace] = []
    trace_stats = TraceStats()
    most = recipe.sft.max_traces or len(questions)
    waiting = deque(questions)
    while waiting and len(traces) < most:
        count = min(_BATCH, most - len(traces), len(waiting))
        batch = [waiting.popleft() for _ in range(count)]
        states = [write_draft(question) for question in batch]
        searched = carry_out(states, executor, recipe)
        for question, state, (block, results) in zip(batch, states, searched, strict=True):
            trace_stats.taken += 1
            if not _tells(question, results):
                trace_stats.reject(EVIDENCE_MISSED if results else PLAN_REFUSED)
                continue
            traces.append(finish_trace(question, state, block, question.answers[0]))
    require_traces(traces, trace_stats, recipe)
    return traces, trace_stats


def _think(plan: SearchPlan) -> str:
    if len(plan.nodes) > 1 and not plan.edges:
        return COMPARISON
    return (ONE_HOP, TWO_HOPS, THREE_HOPS)[len(plan.nodes) - 1]


def _tells(question: Question, results: Sequence[NodeResult]) -> bool:
    """Whether every node found the passage that tells its fact."""
    told = [{passage.id for passage in result.passages} for result in results]
    evidence = gold_evidence(question)
    return len(told) == len(evidence) and all(map(set.__contains__, told, evidence))
