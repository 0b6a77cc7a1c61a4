"""The frozen records of the data path, from `Question` to `Trajectory` and `RewardParts`."""

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
        answers: Accepted reference answers; the best match counts. Empty for interactive questions,
            and for questions that are only known by their supporting titles.
        type: Kind of reasoning (`bridge`, `comparison`, `one-hop`, ...), or "" if unknown.
        level: `easy`, `medium`, `hard`, or "" if unknown.
        supporting_titles: Titles of the passages with the evidence, where the set names them.
        metadata: Further fields of the question set, unchanged.
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
        nodes: In the order written; labels are unique.
        edges: `(parent, child)` label pairs without duplicates; the child waits for the parent.
    """

    nodes: tuple[PlanNode, ...]
    edges: tuple[tuple[str, str], ...] = ()

    def parents(self, label: str) -> tuple[str, ...]:
        """Return the labels that `label` waits for, in the order of the edges."""
        return tuple(parent for parent, child in self.edges if child == label)

    def waves(self) -> tuple[tuple[PlanNode, ...], ...]:
        """Group the nodes into waves: a node's parents are all in earlier waves."""
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
    """A search hit.

    Attributes:
        id: Unique in its corpus (a URL for the web).
        title: May be empty.
        text: The body as the source returned it (not neutralised).
        source: Source it belongs to (`General`, ...); "" means every source may return it.
        score: The source's relevance, higher is better; comparable within one search only.
    """

    id: str
    title: str
    text: str
    source: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The outcome of searching for one plan node.

    Attributes:
        node: The node as the policy wrote it.
        expansion: Words that its parents' passages added to the query; empty for a root.
        passages: Best first; empty if nothing was found or the search failed.
        error: One line if the search failed after all retries, else None.
        cached: Whether the passages came from the disk cache.
        seconds: Time that the source took, without queueing, and that reading pages took; 0 if it
            was not called. Ignored when results are compared.
        unread: One line for every page that could not be read; its passage is as the source
            returned it.
    """

    node: PlanNode
    expansion: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    error: str | None = None
    cached: bool = False
    seconds: float = field(default=0.0, compare=False)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a completion with one author.

    Attributes:
        text: What was written; an end-of-sequence token has no text.
        token_ids: `[l]` ids exactly as sampled (`model`) or inserted (`system`); empty where a
            server returns text only.
        author: `model` is trained on, `system` is masked out of the loss.
        usage: Tokens as counted by a server, or an estimate; None if `token_ids` has them all.
        seconds: Time that a server took to write it; None for local weights, which write a batch
            at once. Ignored when segments are compared.
        error: Why a server wrote nothing, in one line, or None.
        template_chars: Length of the prefix of `text` that the server's chat template writes.
    """

    text: str
    token_ids: tuple[int, ...]
    author: Literal["model", "system"]
    usage: int | None = None
    seconds: float | None = field(default=None, compare=False)
    error: str | None = None
    template_chars: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.token_ids) if self.usage is None else self.usage


@dataclass(frozen=True, slots=True)
class SearchRound:
    """One `<search>` block of a trajectory.

    Attributes:
        plan: The plan, or None if it is not valid.
        problems: Why the plan is not valid; empty when `plan` is set.
        results: One per node, in plan order; empty if the plan is not valid.
    """

    plan: SearchPlan | None
    problems: tuple[str, ...] = ()
    results: tuple[NodeResult, ...] = ()


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A finished rollout: everything that rewards, metrics, the loss and the screen need.

    Attributes:
        question: What was asked.
        prompt_ids: `[p]` token ids of the rendered prompt, unpadded; empty where a server keeps
            them to itself.
        opening: Start of the model's turn that is already in the prompt (`<think>`), else "".
        segments: The completion in order; model and system text alternate.
        rounds: One per `<search>` block that the model closed.
        answer: Text of the last `<answer>` block, or None.
        stop: Why generation ended: `answer` was closed, the model's own `eos`, or token `length`.
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
        """The completion as text, with the opening."""
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
    def generated_tokens(self) -> int:
        """Tokens that the policy wrote."""
        return sum(segment.tokens for segment in self.segments if segment.author == "model")

    @property
    def generation_seconds(self) -> float | None:
        """Time that a server took to generate, without queueing; None for local weights."""
        seconds = [segment.seconds for segment in self.segments if segment.seconds is not None]
        return sum(seconds) if seconds else None

    @property
    def error(self) -> str | None:
        """Why the policy failed to generate, in one line, or None."""
        return next((segment.error for segment in self.segments if segment.error), None)

    @property
    def failed_searches(self) -> int:
        """Plan nodes whose source returned an error."""
        return sum(r.error is not None for round_ in self.rounds for r in round_.results)

    @property
    def failed_reads(self) -> int:
        """Pages that could not be read; see `NodeResult.unread`."""
        return sum(len(r.unread) for round_ in self.rounds for r in round_.results)


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of a conversation.

    Attributes:
        question: As typed.
        answer: The answer, or None if there was none.
        asked_as: The question that was asked instead, or None for the one that was typed.
    """

    question: str
    answer: str | None
    asked_as: str | None = None


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A question of a conversation, and how it is asked.

    Attributes:
        question: As typed.
        asked_as: The question that is asked instead, or None for the one that was typed.
        note: Why it was not rewritten, in one line, or None.
        public_note: The note without the message of a service, or None if it has none.
    """

    question: str
    asked_as: str | None = None
    note: str | None = None
    public_note: str | None = None

    @property
    def asked(self) -> str:
        """The question that is asked."""
        return self.asked_as or self.question

    def describe(self) -> str | None:
        """Return in one line what a person should know about it, or None."""
        return f"asked as: {self.asked_as}" if self.asked_as else self.note


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a paragraph.

    Attributes:
        text: Without its citations, on one line.
        numbers: Numbers of the passages that it cites, without repetition.
        problem: Why these passages do not support it, in one line, or None if they do; see
            `dialogue.support`.
        dropped: Numbers that it cites although there is no such passage.
    """

    text: str
    numbers: tuple[int, ...]
    problem: str | None = None
    dropped: tuple[int, ...] = ()

    @property
    def supported(self) -> bool:
        """Whether the passages that it cites hold its words."""
        return self.problem is None

    @property
    def marks(self) -> str:
        """What follows it: its citations, and `[unsupported]` if they do not hold its words."""
        cited = "".join(f"[{number}]" for number in self.numbers)
        return cited if self.supported else f"{cited}[unsupported]"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A long answer.

    Attributes:
        sentences: In order; empty if none was written.
        note: Why none was written, in one line, or None.
        public_note: The note without the message of a service, or None if it has none.
    """

    sentences: tuple[Sentence, ...]
    note: str | None = None
    public_note: str | None = None

    @property
    def text(self) -> str:
        """Its sentences with their citations; "" if none was written."""
        return " ".join(f"{sentence.text} {sentence.marks}" for sentence in self.sentences)


@dataclass(frozen=True, slots=True)
class RewardParts:
    """The reward of one trajectory and its components.

    Attributes:
        answer: Score of the answer in [0, 1], or None if it could not be scored.
        plan: 1.0 if there is at least one plan and all are valid, else 0.0.
        format: Share in [0, 1] of the format rules that the transcript keeps.
        total: Weighted sum, or None if unscored: the row is then dropped from its group.
        extra: Scores in [-1, 1] of the parts in `reward.extra` that apply to the question, by name;
            None for one that could not be scored.
        failure: Why a part of `extra` could not be scored, in one line, or None.
    """

    answer: float | None
    plan: float
    format: float
    total: float | None
    extra: Mapping[str, float | None] = field(default_factory=dict)
    failure: str | None = None
