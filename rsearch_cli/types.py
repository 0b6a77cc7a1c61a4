"""The records that travel down the data path, frozen.

Place in the path: `Question` enters at the top, a `Trajectory` with its `RewardParts` leaves at the
bottom; no module passes loose dictionaries in between. On failure: building a record never fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its reference answers.

    Attributes:
        id: Unique in its set.
        text: The question as asked.
        answers: Accepted reference answers; the best match counts. Empty only where a person asks.
        type: Kind of reasoning (`bridge`, `comparison`, `one-hop`, ...), or "" if the set has none.
        level: `easy`, `medium`, `hard`, or "" if the set has none.
        supporting_titles: Titles of the passages that hold the evidence, where the set names them.
        metadata: Further fields of the set, kept as they came.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    type: str = ""
    level: str = ""
    supporting_titles: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanNode:
    """One sub-query of a plan: its label (`A`), query text and source name (`General`)."""

    label: str
    query: str
    source: str


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A valid plan: an acyclic graph of sub-queries.

    Attributes:
        nodes: In the order they were written; labels are unique.
        edges: `(parent, child)` label pairs; the child waits for the parent. No duplicates.
    """

    nodes: tuple[PlanNode, ...]
    edges: tuple[tuple[str, str], ...] = ()

    def parents(self, label: str) -> tuple[str, ...]:
        """Labels of the nodes that `label` waits for, in the order of the edges."""
        return tuple(parent for parent, child in self.edges if child == label)

    def waves(self) -> tuple[tuple[PlanNode, ...], ...]:
        """Nodes grouped so that every node comes after all its parents; a wave runs at once."""
        done: set[str] = set()
        waiting = list(self.nodes)
        waves = []
        while waiting:
            wave = tuple(n for n in waiting if done.issuperset(self.parents(n.label)))
            if not wave:
                raise ValueError(f"the plan has a cycle among {[n.label for n in waiting]}")
            waves.append(wave)
            done.update(n.label for n in wave)
            waiting = [n for n in waiting if n.label not in done]
        return tuple(waves)


@dataclass(frozen=True, slots=True)
class Passage:
    """One piece of text from a source.

    Attributes:
        id: Unique in its corpus (a URL for the web).
        title: Heading of the passage; may be empty.
        text: The body, as the source gave it (not neutralised).
        source: Source it belongs to (`General`, ...); "" means it answers for every source.
        score: The source's own relevance, higher is better; comparable within one answer only.
    """

    id: str
    title: str
    text: str
    source: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What the search for one plan node gave.

    Attributes:
        node: The node as the policy wrote it.
        expansion: Words that its parents' passages added to its query; empty for a root.
        passages: Best first; empty if nothing was found or the search failed.
        error: One line if the search failed after all retries, else None.
        cached: Whether the answer came from the disk cache.
        seconds: How long its source took, without any waiting in line; 0 where it was not asked.
            Two results that differ in it alone are equal.
    """

    node: PlanNode
    expansion: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    error: str | None = None
    cached: bool = False
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a completion with one author.

    Attributes:
        text: Decoded `token_ids`.
        token_ids: `[l]`, exactly the ids that were sampled (`model`) or inserted (`system`).
        author: `model` is trained on, `system` is masked out of the loss.
    """

    text: str
    token_ids: tuple[int, ...]
    author: Literal["model", "system"]


@dataclass(frozen=True, slots=True)
class SearchRound:
    """One `<search>` of a trajectory.

    Attributes:
        plan: The plan, or None if it could not be read.
        problems: Why the plan is invalid; empty when `plan` is set.
        results: One a node, in plan order; empty if the plan is invalid.
    """

    plan: SearchPlan | None
    problems: tuple[str, ...] = ()
    results: tuple[NodeResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One rollout, whole: everything rewards, metrics, the loss and a person's screen need.

    Attributes:
        question: What was asked.
        prompt_ids: `[p]` token ids of the rendered prompt, unpadded.
        opening: Text that the prompt's template has already opened for the model (`<think>` for the
            R1 family), else "".
        segments: The completion in order; model and system text alternate.
        rounds: One a `<search>` that the model closed.
        answer: Text of the last `<answer>`, or None.
        stop: Why generation ended: `answer` closed, the model's own `eos`, or the token `length`.
    """

    question: Question
    prompt_ids: tuple[int, ...]
    opening: str
    segments: tuple[Segment, ...]
    rounds: tuple[SearchRound, ...]
    answer: str | None
    stop: Literal["answer", "eos", "length"]

    @property
    def transcript(self) -> str:
        """The whole exchange as text, with what the template had opened."""
        return self.opening + "".join(segment.text for segment in self.segments)

    @property
    def completion_ids(self) -> list[int]:
        """`[L]` ids of all segments, concatenated; never re-encoded from text."""
        return [i for segment in self.segments for i in segment.token_ids]

    @property
    def model_mask(self) -> list[int]:
        """`[L]` 1 where the policy wrote the token, 0 where the system inserted it."""
        return [
            int(segment.author == "model") for segment in self.segments for _ in segment.token_ids
        ]

    @property
    def failed_searches(self) -> int:
        """Plan nodes whose source gave an error instead of an answer."""
        return sum(r.error is not None for round_ in self.rounds for r in round_.results)


@dataclass(frozen=True, slots=True)
class RewardParts:
    """The reward of one trajectory and what it is made of, each in [0, 1].

    Attributes:
        answer: Score of the answer, or None if it could not be scored.
        plan: 1.0 if every plan is valid and there is at least one, else 0.0.
        format: Share of the format's rules that the transcript keeps.
        total: Weighted sum, or None for «unscored»: the row then leaves its group as a whole.
    """

    answer: float | None
    plan: float
    format: float
    total: float | None
