"""Traces selected by rejection sampling, from a file or a teacher: only flawless ones are kept.

The file may hold predictions of an evaluation, trajectories of a run, or traces of one. Plans,
format and answers are checked again by the rules of this recipe; only failed searches and requests
are taken from the file, because they cannot be seen otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsearch_cli.protocol.plan import read_plan
from rsearch_cli.protocol.transcript import read_transcript
from rsearch_cli.questions.rows import Row, read_rows
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.lexical import exact_match, f1
from rsearch_cli.training.traces import SEARCH_FAILED, Trace, TraceStats, require_traces
from rsearch_cli.types import Question, Segment


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transcript that may become a trace.

    Attributes:
        trace: The transcript.
        failed_searches: How many of its searches failed.
        failure: Why the server that wrote it did not finish it, or None.
    """

    trace: Trace
    failed_searches: int
    failure: str | None = None


class TraceChoice:
    """Accepts flawless transcripts, as many as `sft.per_question` and `sft.max_traces` allow.

    Args:
        recipe: Its protocol, reward, rollout and sft sections are read.
        held_out: Texts of the questions that the run is evaluated on; their traces are rejected.

    Attributes:
        traces: The accepted traces, in order.
        stats: How many were accepted, and why the others were not.
    """

    def __init__(self, recipe: Recipe, held_out: Collection[str] = ()) -> None:
        self.traces: list[Trace] = []
        self.stats = TraceStats()
        self._recipe = recipe
        self._held_out = held_out
        self._taken: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()

    def consider(self, candidate: Candidate) -> None:
        """Accept a transcript, or count why not."""
        if candidate.failure:
            self.stats.failed += 1
            return
        trace = candidate.trace
        self.stats.taken += 1
        if reason := self._find_reason(candidate):
            self.stats.reject(reason)
            return
        self._seen.add((trace.question.text, trace.written))
        self._taken[trace.question.text] += 1
        self.traces.append(trace)

    def lacks(self, question: Question) -> bool:
        """Whether there may be more traces of a question."""
        return self._taken[question.text] < self._recipe.sft.per_question

    def _find_reason(self, candidate: Candidate) -> str | None:
        trace, most = candidate.trace, self._recipe.sft.max_traces
        if trace.question.text in self._held_out:
            return "of evaluated questions"
        if fault := find_fault(candidate, self._recipe):
            return fault
        if (trace.question.text, trace.written) in self._seen:
            return "duplicates"
        if not self.lacks(trace.question):
            return "over sft.per_question"
        return "over sft.max_traces" if len(self.traces) == most else None


def choose_traces(recipe: Recipe, held_out: Collection[str]) -> tuple[list[Trace], TraceStats]:
    """Read the file of `sft.traces` and return the accepted traces, in order, and the counts.

    Args:
        recipe: See `TraceChoice`.
        held_out: See `TraceChoice`.

    Raises:
        DataError: The file cannot be read, or no trace is left.
    """
    choice = TraceChoice(recipe, held_out)
    for candidate in read_candidates(Path(recipe.sft.traces).expanduser()):
        choice.consider(candidate)
    require_traces(choice.traces, choice.stats, recipe)
    return choice.traces, choice.stats


def find_fault(candidate: Candidate, recipe: Recipe) -> str | None:
    """Return why a transcript is rejected, or None if it is not."""
    trace = candidate.trace
    references = trace.question.answers
    reading = read_transcript("", trace.segments, recipe.protocol)
    answer = reading.answer
    if answer is None:
        return "without an answer"
    if not references:
        return "of questions without a reference answer"
    how = recipe.reward.normalisation
    right = exact_match(answer, references, how) or f1(answer, references, how) >= recipe.sft.min_f1
    if not right:
        return "with a wrong answer"
    if not reading.format_valid:
        return "with a broken format"
    if any(read_plan(text, recipe.protocol).plan is None for text in reading.plan_texts):
        return "with a plan that is not valid"
    if candidate.failed_searches:
        return SEARCH_FAILED
    if len(reading.plan_texts) > recipe.rollout.max_turns:
        return "with more searches than rollout.max_turns"
    return None


def read_candidates(path: Path) -> Iterator[Candidate]:
    """Read the transcripts of a file of predictions, trajectories or traces.

    Raises:
        DataError: The file is missing or empty, or a row is none of these.
    """
    for row in read_rows(path):
        try:
            yield read_candidate(row.fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _malformed(row, error) from error


def read_candidate(row: dict[str, Any]) -> Candidate:
    """Read a prediction, a trajectory or a trace; raises various errors if it is none of these."""
    if "transcript" in row:
        question = Question(row["id"], row["text"], _texts(row["references"]))
        segments = _cut(_text(row["transcript"]), row["inserted"])
        failed = int(row["failed_searches"])
        return Candidate(Trace(question, segments), failed, row.get("failure"))
    question = Question(row["question_id"], row["question"], _texts(row["answers"]))
    segments = tuple(Segment(_text(s["text"]), (), s["author"]) for s in row["segments"])
    if opening := row.get("opening", ""):
        segments = (Segment(opening, (), "model"), *segments)
    results = [r for round_ in row.get("rounds", ()) for r in round_["results"]]
    failed = sum(result["error"] is not None for result in results)
    return Candidate(Trace(question, _join(segments)), failed)


def _cut(transcript: str, inserted: list[list[int]]) -> tuple[Segment, ...]:
    """Split a transcript at the character ranges that the system wrote."""
    segments, position = [], 0
    for start, end in [*inserted, [len(transcript), len(transcript)]]:
        if not position <= start <= end <= len(transcript):
            raise ValueError(f"the range {start} to {end} of 'inserted' is not in the transcript")
        segments.append(Segment(transcript[position:start], (), "model"))
        segments.append(Segment(transcript[start:end], (), "system"))
        position = end
    return tuple(segment for segment in segments if segment.text)


def _join(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Drop empty segments and merge consecutive ones of the same author."""
    joined: list[Segment] = []
    for segment in segments:
        if segment.author not in ("model", "system"):
            raise ValueError(f"a segment's author must be model or system, not {segment.author!r}")
        if joined and joined[-1].author == segment.author:
            segment = Segment(joined.pop().text + segment.text, (), segment.author)
        if segment.text:
            joined.append(segment)
    return tuple(joined)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {type(value).__name__}")
    return value


def _texts(values: list[object]) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError("the reference answers must be a list")
    return tuple(_text(value) for value in values)


def _malformed(row: Row, error: Exception) -> Exception:
    problem = str(error)
    if isinstance(error, KeyError):
        problem = f"{error} is missing"
    elif not isinstance(error, ValueError):
        problem = f"a field is of the wrong type ({error})"
    return row.malformed(f"no prediction, trajectory or trace of rsearch: {problem}")
