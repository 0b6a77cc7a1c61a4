"""Traces: transcripts to learn from, and their token ids with what is learnt of them.

Place in the path: `world_traces` and `stored_traces` give them, the supervised cold start takes
their examples. A trace is encoded as a rollout joins its pieces: every segment by itself, results
inserted as this recipe and this tokenizer want them and masked. On failure: a trace that this
policy could not have written is left out and counted; `DataEmpty` if none is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsearch_cli.errors import DataEmpty
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.prompts import render_question
from rsearch_cli.protocol.results import renew_block
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question, Segment

IGNORED = -100
"""Label of a token that nothing is learnt from (the one that transformers' losses leave out)."""

_THINK = "<think>"


@dataclass(frozen=True, slots=True)
class Trace:
    """One finished transcript.

    Attributes:
        question: What was asked.
        segments: The transcript from its `<think>` on, with who wrote what; their ids are empty,
            since they depend on the policy.
    """

    question: Question
    segments: tuple[Segment, ...]

    @property
    def written(self) -> str:
        """What the model wrote, all of it."""
        return "".join(s.text for s in self.segments if s.author == "model")

    def as_row(self) -> dict[str, Any]:
        """The trace as JSON, with the names that `trajectories.jsonl` uses; see `from_row`."""
        return {
            "question_id": self.question.id,
            "question": self.question.text,
            "answers": list(self.question.answers),
            "segments": [{"author": s.author, "text": s.text} for s in self.segments],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Trace:
        """Read what `as_row` wrote."""
        question = Question(row["question_id"], row["question"], tuple(row["answers"]))
        segments = tuple(Segment(s["text"], (), s["author"]) for s in row["segments"])
        return cls(question, segments)


@dataclass(frozen=True, slots=True)
class Example:
    """A trace in numbers.

    Attributes:
        ids: `[L]` prompt and transcript, closed by the end-of-sequence id.
        labels: `[L]` the ids that the model wrote (and the end), `IGNORED` for all others.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def learnt(self) -> int:
        """Number of tokens that are learnt from."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(slots=True)
class TraceStats:
    """How many traces were taken, and why the others were not."""

    taken: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def reject(self, reason: str) -> None:
        """Count a trace out that had been taken before."""
        self.taken -= 1
        self.rejected[reason] += 1

    def describe(self) -> str:
        """Both in one line, the most frequent reason first."""
        total = self.taken + self.rejected.total()
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected.most_common())
        left_out = f"; left out: {reasons}" if reasons else ""
        return f"{self.taken} of {total} traces taken{left_out}"

    def as_row(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"taken": self.taken, "rejected": dict(self.rejected.most_common())}


class Unfit(ValueError):
    """A trace that this policy could not have written; the text says why."""


def encode_traces(
    traces: Sequence[Trace], policy: ChatTokenizer, recipe: Recipe, trace_stats: TraceStats
) -> list[tuple[Trace, Example]]:
    """Encode all traces that fit the policy, in their order.

    Args:
        traces: Those that were taken.
        policy: Its tokenizer and chat template count.
        recipe: Its protocol, rollout and policy sections are read.
        trace_stats: Gets those that are left out here.

    Raises:
        DataEmpty: None is left; the line has all reasons.
    """
    encoded = []
    for trace in traces:
        try:
            encoded.append((trace, encode_trace(trace, policy, recipe)))
        except Unfit as reason:
            trace_stats.reject(str(reason))
    require_traces(encoded, trace_stats, recipe)
    return encoded


def encode_trace(trace: Trace, policy: ChatTokenizer, recipe: Recipe) -> Example:
    """Encode one trace.

    Raises:
        Unfit: It holds control tokens, is too long, or does not begin where the prompt ends.
    """
    prompt = render_question(trace.question, policy, recipe)
    pieces: list[tuple[Sequence[int], bool]] = [(prompt.token_ids, False)]
    for text, is_learnt in _texts(trace.segments, prompt.opening):
        if is_learnt:
            pieces.append((_encode_written(text, policy), True))
        else:
            block = renew_block(text, recipe.protocol, policy.forbidden)
            pieces.append((policy.encode(block), False))
    # Other runtimes stop at the end-of-sequence id and not at a tag: so it is learnt.
    pieces.append(([policy.eos_id], True))
    ids = tuple(i for piece, _ in pieces for i in piece)
    labels = tuple(i if is_learnt else IGNORED for piece, is_learnt in pieces for i in piece)
    example = Example(ids, labels)
    if len(ids) > recipe.policy.max_seq_length:
        raise Unfit("longer than policy.max_seq_length")
    if example.learnt - 1 > recipe.rollout.max_new_tokens:
        raise Unfit("longer than rollout.max_new_tokens")
    return example


def require_traces(left: Sequence[object], trace_stats: TraceStats, recipe: Recipe) -> None:
    """Refuse to go on without a trace.

    Raises:
        DataEmpty: Nothing is left; the line has all reasons.
    """
    if not left:
        raise DataEmpty(
            f"sft.traces {recipe.sft.traces}: no trace is left to learn from "
            f"({trace_stats.describe()})"
        )


def _texts(segments: Iterable[Segment], opening: str) -> list[tuple[str, bool]]:
    """The pieces and whether they are learnt; the first begins where the prompt ends."""
    texts = [(s.text, s.author == "model") for s in segments if s.text]
    first, last = texts[0][0].lstrip(), texts[-1][0].rstrip()
    if opening:
        if not first.startswith(_THINK):
            raise Unfit("begun without the <think> that the prompt opens")
        first = first.removeprefix(_THINK)
        if opening.endswith("\n"):
            first = first.lstrip()
    if len(texts) == 1:
        return [(first.rstrip(), True)]
    return [(first, texts[0][1]), *texts[1:-1], (last, texts[-1][1])]


def _encode_written(text: str, policy: ChatTokenizer) -> list[int]:
    ids: list[int] = policy.tokenizer.encode(text, add_special_tokens=False)
    if not set(ids).isdisjoint(policy.tokenizer.all_special_ids):
        raise Unfit("with control tokens in the model's text")
    return ids
