"""Read, validate and render search plans, the text between `<search>` and `</search>`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from rsearch_cli.protocol import grammar
from rsearch_cli.protocol.characters import count_words
from rsearch_cli.protocol.grammar import Unclear, shown
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import PlanNode, SearchPlan

MAX_CHARS = 20_000
"""Longest plan that is read, in characters; typical plans have a few hundred."""
MAX_LINES = 1_000
"""Maximum number of lines, including blank ones."""
MAX_NOTES = 20
"""Maximum number of problems, and of repairs, reported for one plan."""


@dataclass(frozen=True, slots=True)
class PlanReading:
    """The outcome of reading a plan.

    Attributes:
        plan: The plan, or None if there are problems.
        problems: Why the plan is not valid, each with line and value; empty if it is.
        repairs: Deviations from the canonical form that were accepted.
    """

    plan: SearchPlan | None
    problems: tuple[str, ...]
    repairs: tuple[str, ...]


def read_plan(text: str, rules: ProtocolConfig) -> PlanReading:
    """Read a plan as models write it; anything ambiguous is a problem, never a guess.

    Args:
        text: The text between `<search>` and `</search>`, of any length; reading takes linear,
            bounded time.
        rules: Known sources and limits.

    Returns:
        The plan or its problems, and the repairs. Line numbers start at the first non-blank line.
    """
    lines = text.strip().splitlines() if len(text) <= MAX_CHARS else []
    if len(text) > MAX_CHARS or len(lines) > MAX_LINES:
        size = f"{len(text)} characters and {text.count(chr(10)) + 1} lines"
        limit = f"at most {MAX_CHARS} characters and {MAX_LINES} lines are read"
        return PlanReading(None, (f"the plan has {size}, {limit}",), ())
    state = _State(rules)
    if "\r" in text:
        state.repairs["Windows line ends read as plain ones"] = None
    for number, line in enumerate(lines, start=1):
        if state.full:
            break
        state.read_line(number, line)
    return state.finish()


def render_plan(plan: SearchPlan) -> str:
    """Render a plan in the canonical form, which `read_plan` accepts without repairs."""
    nodes = [f"{node.label}: {node.query} ({node.source})" for node in plan.nodes]
    edges = [f"{parent} -> {child}" for parent, child in plan.edges]
    return "\n".join(["Nodes:", *nodes, "Edges:", *edges])


@dataclass(slots=True)
class _State:
    """A partially read plan; labels and edges are mapped to their line numbers."""

    rules: ProtocolConfig
    section: str = ""
    headings: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    nodes: list[PlanNode] = field(default_factory=list)
    edges: dict[tuple[str, str], int] = field(default_factory=dict)
    no_edges_line: int | None = None
    problems: list[str] = field(default_factory=list)
    repairs: dict[str, None] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether reading further could not change the outcome."""
        return len(self.problems) >= MAX_NOTES or len(self.labels) > self.rules.max_nodes

    def repair(self, words: str) -> None:
        if len(self.repairs) < MAX_NOTES:
            self.repairs[words] = None

    def read_line(self, number: int, line: str) -> None:
        def note(words: str) -> None:
            self.repair(f"line {number}: {words}")

        if grammar.FENCE.fullmatch(line.strip()):
            note("code fence dropped")
            return
        plain = grammar.plain_line(line, note)
        for part in grammar.split_nodes(plain, self.rules.sources, note):
            if self.full:
                break
            try:
                self._read_part(number, part, note)
            except Unclear as unclear:
                self.problems.append(f"line {number}: {unclear}")

    def _read_part(self, number: int, part: str, note: Callable[[str], None]) -> None:
        heading = grammar.read_heading(part, note)
        if heading:
            self.section, part = heading
            if self.section in self.headings:
                raise Unclear(f"a second {self.section.capitalize()} heading")
            self.headings.append(self.section)
            if part:
                note(f"{shown(part)} read as if on a line of its own")
        if part and self.section == "edges":
            self._read_edges(number, part, note)
        elif grammar.ARROW.search(part) and not grammar.has_label(part):
            self._read_edges(number, part, note)
            self.section = "edges"
            note("edges without an Edges heading")
        elif part:
            self._read_node(number, part, note)

    def _read_node(self, number: int, part: str, note: Callable[[str], None]) -> None:
        label, rest = grammar.read_label(part, note)
        if label in self.labels:
            raise Unclear(f"label '{label}' is taken by line {self.labels[label]}")
        self.labels[label] = number
        node = grammar.read_node(label, rest, self.rules.sources, note)
        words, most = count_words(node.query), self.rules.max_query_words
        if words > most:
            raise Unclear(
                f"query {shown(node.query)} has {words} words, at most {most} are allowed"
            )
        self.nodes.append(node)
        if not self.headings:
            self.repair("no Nodes heading: lines read as nodes")

    def _read_edges(self, number: int, part: str, note: Callable[[str], None]) -> None:
        if grammar.means_no_edges(part):
            self.no_edges_line = number
            note(f"{shown(part)} read as no edges")
            return
        for edge in grammar.read_edges(part, note):
            if edge in self.edges:
                note(f"edge {' -> '.join(edge)} repeats line {self.edges[edge]}")
            self.edges.setdefault(edge, number)

    def finish(self) -> PlanReading:
        """Validate the plan as a whole, once all lines are read."""
        if not self.labels and not self.problems:
            self.problems.append("the plan has no nodes")
        if len(self.labels) > self.rules.max_nodes:
            self.problems.append(f"more nodes than the limit of {self.rules.max_nodes}")
        if not self.full:
            self.problems += self._edge_problems()
        if not self.problems and (cycle := self._cycle()):
            self.problems.append(f"the edges form a cycle: {' -> '.join(cycle)}")
        if self.problems:
            return PlanReading(None, tuple(self.problems[:MAX_NOTES]), tuple(self.repairs))
        if "edges" not in (*self.headings, self.section):
            self.repair("no Edges section: read as no edges")
        if self.headings == ["edges", "nodes"]:
            self.repair("Edges before Nodes: read in either order")
        return PlanReading(
            SearchPlan(tuple(self.nodes), tuple(self.edges)), (), tuple(self.repairs)
        )

    def _edge_problems(self) -> Iterator[str]:
        if self.edges and self.no_edges_line:
            yield f"line {self.no_edges_line}: says that there are no edges, but there are"
        for edge, number in self.edges.items():
            where = f"line {number}: edge {' -> '.join(edge)}"
            if edge[0] == edge[1]:
                yield f"{where} leads a node to itself"
            for label in dict.fromkeys(edge):
                if label not in self.labels:
                    yield f"{where}: no node has the label '{label}'"

    def _cycle(self) -> list[str]:
        """Return the labels of a cycle, the first repeated at the end; empty without a cycle."""
        order: TopologicalSorter[str] = TopologicalSorter()
        for parent, child in self.edges:
            order.add(child, parent)
        try:
            order.prepare()
        except CycleError as error:
            return list(error.args[1])
        return []
