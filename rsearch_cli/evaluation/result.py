"""One evaluated question: the answer, its scores and what it cost.

The same record serves `rsearch eval` and the evaluations before, during and after a training. A
figure that was not measured is None, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from rsearch_cli.errors import DataMalformed
from rsearch_cli.evaluation.methods import AGENT, DIRECT
from rsearch_cli.protocol.transcript import read_transcript
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.composite import plan_score
from rsearch_cli.reward.lexical import Normalisation, exact_match, f1
from rsearch_cli.reward.retrieval import title_recall
from rsearch_cli.types import Trajectory

# Fields with a share in [0, 1], with any other amount, and those of both that may be None.
_SHARES = frozenset(("em", "f1", "plan_valid", "format_valid", "judge", "title_recall"))
_AMOUNTS = frozenset(
    ("searches", "completion_tokens", "failed_searches", "failed_reads", "seconds", "usd", "sample")
)
_MAY_LACK = frozenset(("judge", "title_recall", "seconds", "usd", "sample"))


@dataclass(frozen=True, slots=True)
class EvalResult:
    """The answer of one method to one question, with its scores.

    Attributes:
        id: Id of the question.
        text: The question.
        references: Accepted answers; empty if the question has none.
        answer: The answer, or None if the policy gave none.
        em: Exact match, 0.0 or 1.0; None without references.
        f1: Token F1 in [0, 1]; None without references.
        plan_valid: 1.0 if there is at least one plan and all plans are valid, else 0.0.
        format_valid: 1.0 if the transcript follows every rule of the format, else 0.0.
        searches: Sub-queries that were executed, over all rounds.
        completion_tokens: Tokens written by the policy; inserted results do not count.
        transcript: The whole exchange as text.
        inserted: `(start, end)` character ranges of `transcript` that the system inserted.
        type: Kind of reasoning of the question, or "".
        level: Difficulty of the question, or "".
        failed_searches: How many of `searches` ended with an error.
        failed_reads: Pages that could not be read; see `search.read_top`.
        method: One of `methods.METHODS`.
        judge: Score of the judge in [0, 1]; None without a judge or without a verdict.
        judged: Whether a verdict was requested.
        title_recall: Share in [0, 1] of the supporting titles among the retrieved titles; None if
            the question names none, the method does not search, or a search failed.
        seconds: With a server, the time of this question's own calls and searches without queueing;
            with local weights, the time of the whole batch. None if it was not measured, as in the
            evaluations of a training, whose records must not depend on the clock.
        usd: The question's share of what its batch cost; None if it was not measured.
        search_failure: Error of the last failed search, or None.
        failure: Why the policy's server gave no answer, or None. Such a result is counted and
            excluded from every mean.
        sample: Which of several samples of the question this is, from 0; None if there is one
            answer only.
    """

    id: str
    text: str
    references: tuple[str, ...]
    answer: str | None
    em: float | None
    f1: float | None
    plan_valid: float
    format_valid: float
    searches: int
    completion_tokens: int
    transcript: str
    inserted: tuple[tuple[int, int], ...] = ()
    type: str = ""
    level: str = ""
    failed_searches: int = 0
    failed_reads: int = 0
    method: str = AGENT
    judge: float | None = None
    judged: bool = False
    title_recall: float | None = None
    seconds: float | None = None
    usd: float | None = None
    search_failure: str | None = None
    failure: str | None = None
    sample: int | None = None

    @property
    def unscored(self) -> bool:
        """Whether a verdict was requested and the judge gave none."""
        return self.judged and self.judge is None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-ready dictionary, which `from_json` reads.

        `sample` is only among them for one of several samples.
        """
        row = asdict(self)
        if self.sample is None:
            del row["sample"]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EvalResult:
        """Read a row of `predictions.jsonl` or of a run's `predictions/`.

        Runs of earlier versions stored fewer fields; those get their defaults.

        Raises:
            DataMalformed: A required field is missing, a field is unknown, or a number is none that
                an evaluation writes.
        """
        known = {field.name: field.default is MISSING for field in fields(cls)}
        missing = sorted(name for name, required in known.items() if required and name not in row)
        unknown = sorted(row.keys() - known.keys())
        if missing or unknown:
            raise DataMalformed(
                f"not a stored prediction: missing {missing}, unknown {unknown}; evaluate again "
                "with this version"
            )
        may_lack = _MAY_LACK if row["references"] else _MAY_LACK | {"em", "f1"}
        for name, value in row.items():
            most = 1.0 if name in _SHARES else 1e300 if name in _AMOUNTS else None
            absent = value is None and name in may_lack
            if most and not (absent or (isinstance(value, int | float) and 0 <= value <= most)):
                raise DataMalformed(f"not a stored prediction: {name} is {value!r:.40}")
        spans = tuple((int(start), int(end)) for start, end in row.get("inserted", ()))
        return cls(**{**row, "references": tuple(row["references"]), "inserted": spans})


def score_trajectory(trajectory: Trajectory, recipe: Recipe, method: str = AGENT) -> EvalResult:
    """Score a trajectory against its question's references and the format, without a judge.

    Args:
        trajectory: What the method made of the question.
        recipe: Its protocol and reward sections are read.
        method: One of `methods.METHODS`.
    """
    question = trajectory.question
    reading = read_transcript(trajectory.opening, trajectory.segments, recipe.protocol)
    results = [result for round_ in trajectory.rounds for result in round_.results]
    errors = [result.error for result in results if result.error is not None]
    result = EvalResult(
        id=question.id,
        text=question.text,
        references=question.answers,
        answer=trajectory.answer,
        em=None,
        f1=None,
        plan_valid=plan_score(trajectory.rounds),
        format_valid=float(reading.format_valid),
        searches=len(results),
        completion_tokens=trajectory.generated_tokens,
        transcript=trajectory.transcript,
        inserted=_inserted_ranges(trajectory),
        type=question.type,
        level=question.level,
        failed_searches=len(errors),
        failed_reads=trajectory.failed_reads,
        method=method,
        title_recall=None if method == DIRECT else title_recall(trajectory),
        seconds=_own_seconds(trajectory),
        search_failure=errors[-1] if errors else None,
        failure=trajectory.error,
    )
    return score_answer(result, recipe.reward.normalisation)


def score_answer(result: EvalResult, normalisation: Normalisation) -> EvalResult:
    """Return the result with exact match and F1 by these rules, and without a judge's score."""
    answer, references = result.answer, result.references
    em = f1_score = 0.0 if references else None
    if answer is not None and references:
        em = exact_match(answer, references, normalisation)
        f1_score = f1(answer, references, normalisation)
    return replace(result, em=em, f1=f1_score, judge=None, judged=False)


def search_seconds(trajectory: Trajectory) -> float:
    """Return the time that a question's searches need: the longest chain of each plan, summed."""
    total = 0.0
    for round_ in trajectory.rounds:
        if round_.plan is None:
            continue
        took = {result.node.label: result.seconds for result in round_.results}
        ends: dict[str, float] = {}
        for node in (node for wave in round_.plan.waves() for node in wave):
            begins = max((ends[parent] for parent in round_.plan.parents(node.label)), default=0.0)
            ends[node.label] = begins + took.get(node.label, 0.0)
        total += max(ends.values(), default=0.0)
    return total


def _own_seconds(trajectory: Trajectory) -> float | None:
    """Return the time of one answer; None for local weights, which answer a batch at once."""
    generation = trajectory.generation_seconds
    return None if generation is None else round(generation + search_seconds(trajectory), 4)


def _inserted_ranges(trajectory: Trajectory) -> tuple[tuple[int, int], ...]:
    spans, start = [], len(trajectory.opening)
    for segment in trajectory.segments:
        end = start + len(segment.text)
        if segment.author == "system":
            spans.append((start, end))
        start = end
    return tuple(spans)
