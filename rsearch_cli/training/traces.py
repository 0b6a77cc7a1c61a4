"""Traces: finished transcripts, and their encoding as token ids with labels.

A trace is encoded as a rollout joins its pieces: each segment by itself, with the results rendered
for this recipe and tokenizer and excluded from the loss.
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
"""Label of a token that is excluded from the loss, as in transformers."""

SEARCH_FAILED = "with a failed search"
"""Why a trace is rejected if one of its searches failed."""

_THINK = "<think>"


@dataclass(frozen=True, slots=True)
class Trace:
    """One finished transcript.

    Attributes:
        question: The question.
        segments: The transcript from its `<think>` on. Token ids are empty, because they depend on
            the policy. Without an answer, it ends after the results: that of a question without a
            reference answer.
    """

    question: Question
    segments: tuple[Segment, ...]

    @property
    def written(self) -> str:
        """All text written by the model."""
        return "".join(s.text for s in self.segments if s.author == "model")

    def as_row(self) -> dict[str, Any]:
        """Return the trace as JSON, with the field names of `trajectories.jsonl`."""
        return {
            "question_id": self.question.id,
            "question": self.question.text,
            "answers": list(self.question.answers),
            "segments": [{"author": s.author, "text": s.text} for s in self.segments],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Trace:
        """Read a row of `as_row`."""
        question = Question(row["question_id"], row["question"], tuple(row["answers"]))
        segments = tuple(Segment(s["text"], (), s["author"]) for s in row["segments"])
        return cls(question, segments)


@dataclass(frozen=True, slots=True)
class Example:
    """An encoded trace.

    Attributes:
        ids: `[L]` prompt and transcript, ending with the end-of-sequence id.
        labels: `[L]` the ids written by the model and the last one; `IGNORED` for all others.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained_tokens(self) -> int:
        """Number of tokens in the loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(slots=True)
class TraceStats:
    """How many traces were accepted, and why the others were not.

    Attributes:
        taken: Accepted traces.
        rejected: Rejected traces by reason.
        failed: Questions without an answer because the server failed.
    """

    taken: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def reject(self, reason: str) -> None:
        """Move one trace from the accepted to the rejected ones."""
        self.taken -= 1
        self.rejected[reason] += 1

    def describe(self) -> str:
        """Return the counts as one line, the most frequent reason first."""
        total = self.taken + self.rejected.total() + self.failed
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected.most_common())
        rejected = f"; rejected: {reasons}" if reasons else ""
        failed = f"; failed: {self.failed}" if self.failed else ""
        return f"{self.taken} of {total} traces accepted{rejected}{failed}"

    def as_row(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        rejected = dict(self.rejected.most_common())
        return {"taken": self.taken, "rejected": rejected, "failed": self.failed}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TraceStats:
        """Read a row of `as_row`; runs of earlier versions stored no failures."""
        return cls(row["taken"], Counter(row["rejected"]), row.get("failed", 0))


class Unfit(ValueError):
    """A trace that this policy could not have written; the message is the reason."""


def encode_traces(
    traces: Sequence[Trace], policy: ChatTokenizer, recipe: Recipe, stats: TraceStats
) -> list[tuple[Trace, Example]]:
    """Encode all traces that the policy could have written, in order.

    Args:
        traces: The accepted traces.
        policy: Its tokenizer and chat template count.
        recipe: Its protocol, rollout and policy sections are read.
        stats: Updated with the traces rejected here.

    Raises:
        DataEmpty: No trace is left; the message has all reasons.
    """
    encoded = []
    for trace in traces:
        try:
            encoded.append((trace, encode_trace(trace, policy, recipe)))
        except Unfit as reason:
            stats.reject(str(reason))
    require_traces(encoded, stats, recipe)
    return encoded


def encode_trace(trace: Trace, policy: ChatTokenizer, recipe: Recipe) -> Example:
    """Encode one trace.

    Raises:
        Unfit: It contains control tokens, is too long, or does not start where the prompt ends.
    """
    prompt = render_question(trace.question, policy, recipe)
    pieces: list[tuple[Sequence[int], bool]] = [(prompt.token_ids, False)]
    for text, is_trained in _texts(trace.segments, prompt.opening):
        if is_trained:
            pieces.append((_encode_written(text, policy), True))
        else:
            block = renew_block(text, recipe.protocol, policy.forbidden)
            pieces.append((policy.encode(block), False))
    # Trained too, because other runtimes stop at this id and not at a tag.
    pieces.append(([policy.eos_id], True))
    ids = tuple(i for piece, _ in pieces for i in piece)
    labels = tuple(i if is_trained else IGNORED for piece, is_trained in pieces for i in piece)
    example = Example(ids, labels)
    if len(ids) > recipe.policy.max_seq_length:
        raise Unfit("longer than policy.max_seq_length")
    if example.trained_tokens - 1 > recipe.rollout.max_new_tokens:
        raise Unfit("longer than rollout.max_new_tokens")
    return example


def require_traces(left: Sequence[object], stats: TraceStats, recipe: Recipe) -> None:
    """Raise if there is no trace to train on.

    Raises:
        DataEmpty: The message has the reasons for all rejected traces.
    """
    if not left:
        raise DataEmpty(
            f"sft.traces {recipe.sft.traces}: no trace is left to train on ({stats.describe()})"
        )


def _texts(segments: Iterable[Segment], opening: str) -> list[tuple[str, bool]]:
    """Return each piece and whether it is trained; the first starts where the prompt ends."""
    texts = [(s.text, s.author == "model") for s in segments if s.text]
    first, last = texts[0][0].lstrip(), texts[-1][0].rstrip()
    if opening:
        if not first.startswith(_THINK):
            raise Unfit("that do not start with the <think> of the prompt")
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
