"""Supervised traces for the nano model: plans by rule, real searches, answers copied from results.

A clean trace follows the question's gold plan. A weak one does what a poor searcher does: searches
once where two hops are needed, forgets the edge, asks the wrong source or breaks the format. In
both the answer is what the last search's best passage tells, right or wrong: the model always
learns to read, and only the plans are spoilt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rsearch_cli.protocol.plan import render_plan
from rsearch_cli.questions.world import World, gold_plan
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.search.executor import PlanExecutor
from rsearch_cli.training.planned_traces import (
    ONE_HOP,
    TWO_HOPS,
    TeacherTurn,
    execute_plans,
    finish_trace,
)
from rsearch_cli.training.traces import Trace
from rsearch_cli.training.world_traces import write_turn
from rsearch_cli.types import PlanNode, Question, SearchPlan

UNKNOWN = "unknown"


def search_once(turn: TeacherTurn, plan: SearchPlan, rng: random.Random) -> TeacherTurn:
    """Only the first hop."""
    return TeacherTurn(ONE_HOP, render_plan(SearchPlan(plan.nodes[:1])))


def forget_edge(turn: TeacherTurn, plan: SearchPlan, rng: random.Random) -> TeacherTurn:
    """Both hops, but the second does not wait for the first."""
    return TeacherTurn(TWO_HOPS, render_plan(SearchPlan(plan.nodes)))


def ask_wrong_source(turn: TeacherTurn, plan: SearchPlan, rng: random.Random) -> TeacherTurn:
    """One node asks where its fact is not told: General, or News where General is right."""
    at = rng.randrange(len(plan.nodes))
    node = plan.nodes[at]
    nodes: list[PlanNode] = list(plan.nodes)
    nodes[at] = replace(node, source="News" if node.source == "General" else "General")
    return TeacherTurn(turn.thought, render_plan(SearchPlan(tuple(nodes), plan.edges)))


def break_plan(turn: TeacherTurn, plan: SearchPlan, rng: random.Random) -> TeacherTurn:
    """An edge to a node that does not exist, or a node without a source."""
    text = render_plan(plan)
    if rng.random() < 0.5:
        return replace(turn, plan=text.replace("Edges:", "Edges:\nA -> D", 1))
    return replace(turn, plan=text.replace(f" ({plan.nodes[0].source})", "", 1))


def break_format(turn: TeacherTurn, plan: SearchPlan, rng: random.Random) -> TeacherTurn:
    """The thought is left open, or missing."""
    templates = (
        "<think> {thought}\n<search>\n{plan}\n</search>",
        "<search>\n{plan}\n</search>",
    )
    return replace(turn, template=rng.choice(templates))


Weakness = Callable[[TeacherTurn, SearchPlan, random.Random], TeacherTurn]
TWO_HOP_WEAKNESSES: Sequence[tuple[Weakness, int]] = (
    (search_once, 16),
    (forget_edge, 1),
    (ask_wrong_source, 1),
    (break_plan, 1),
    (break_format, 1),
)
ONE_HOP_WEAKNESSES: Sequence[tuple[Weakness, int]] = (
    (ask_wrong_source, 8),
    (break_plan, 1),
    (break_format, 1),
)


def weak_share(question: Question) -> float:
    """How often the weak teacher fails: on two hops and outside General more often than not."""
    plan = gold_plan(question)
    hard = len(plan.nodes) > 1 or plan.nodes[0].source != "General"
    return 0.7 if hard else 0.25


def turn_for(question: Question, teacher: str, rng: random.Random) -> TeacherTurn:
    """What a `clean` or `weak` teacher writes."""
    turn = write_turn(question)
    if teacher == "clean" or rng.random() >= weak_share(question):
        return turn
    plan = gold_plan(question)
    choices = TWO_HOP_WEAKNESSES if len(plan.nodes) > 1 else ONE_HOP_WEAKNESSES
    weakness = rng.choices([c for c, _ in choices], [w for _, w in choices])[0]
    return weakness(turn, plan, rng)


def make_traces(
    questions: Sequence[Question],
    teacher: str,
    world: World,
    executor: PlanExecutor,
    recipe: Recipe,
    seed: int,
) -> Iterator[Trace]:
    """Write, search and answer every question as the teacher does."""
    rng = random.Random(seed)
    told = {fact.passage_id: fact.object for fact in world.facts()}
    turns = [turn_for(q, teacher, rng) for q in questions]
    searched = execute_plans(turns, executor, recipe)
    for question, turn, (block, results) in zip(questions, turns, searched, strict=True):
        answer = UNKNOWN
        if results and results[-1].passages:
            answer = told[results[-1].passages[0].id]
        yield finish_trace(question, turn, block, answer)
