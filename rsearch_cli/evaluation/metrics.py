"""From trajectories to figures: a `Prediction` per question, a summary, a comparison of two.

Place in the path: takes what `rollout` made of a split, gives the blocks `before`, `after` and
`difference` of `summary.json`. On failure: no questions raise `DataEmpty`; evaluations of different
questions raise `DataError`; a stored prediction that cannot be read raises `DataMalformed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rsearch_cli.errors import DataEmpty, DataError, DataMalformed
from rsearch_cli.evaluation.intervals import Interval, mean_interval, paired_difference
from rsearch_cli.protocol.format_diagnosis import Attempt
from rsearch_cli.protocol.transcript import read_transcript
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.reward.composite import plan_score
from rsearch_cli.reward.lexical import Normalisation, exact_match, f1
from rsearch_cli.types import Segment, Trajectory

# Name in `summary.json`: field of `Prediction`, and whether it is taken from the sampled answers.
_METRICS = {
    "em": ("em", False),
    "em_sampled": ("em", True),
    "f1": ("f1", False),
    "f1_sampled": ("f1", True),
    "plan_valid": ("plan_valid", False),
    "format_valid": ("format_valid", False),
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the policy made of one question, ready to be stored, averaged and shown.

    Attributes:
        id: The question's id.
        text: The question.
        references: Accepted answers.
        answer: The policy's answer, or None if it gave none.
        em: Exact match, 0.0 or 1.0.
        f1: Token F1 in [0, 1].
        plan_valid: 1.0 if there is a plan and all plans are valid, else 0.0.
        format_valid: 1.0 if the transcript keeps every rule of the format, else 0.0.
        searches: Sub-queries that were carried out, over all rounds.
        completion_tokens: Tokens that the policy wrote; inserted results do not count.
        transcript: The whole exchange as text.
        inserted: `(start, end)` character ranges of `transcript` that the system wrote.
        type: The question's kind of reasoning, or "".
        level: The question's difficulty, or "".
        failed_searches: Those of `searches` that got no answer, only an error.
    """

    id: str
    text: str
    references: tuple[str, ...]
    answer: str | None
    em: float
    f1: float
    plan_valid: float
    format_valid: float
    searches: int
    completion_tokens: int
    transcript: str
    inserted: tuple[tuple[int, int], ...] = ()
    type: str = ""
    level: str = ""
    failed_searches: int = 0

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON-ready dictionary; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prediction:
        """Read what `as_json` wrote.

        Raises:
            DataMalformed: A field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if names != set(row):
            raise DataMalformed(
                f"not a stored prediction: missing {sorted(names - set(row))}, unknown "
                f"{sorted(set(row) - names)}; evaluate again with this version"
            )
        spans = tuple((int(start), int(end)) for start, end in row["inserted"])
        return cls(**{**row, "references": tuple(row["references"]), "inserted": spans})


def measure(
    trajectory: Trajectory, protocol: ProtocolConfig, normalisation: Normalisation = "squad"
) -> Prediction:
    """Score one trajectory against its question's references and the format's rules."""
    question, answer = trajectory.question, trajectory.answer
    reading = read_transcript(trajectory.opening, trajectory.segments, protocol)
    return Prediction(
        id=question.id,
        text=question.text,
        references=question.answers,
        answer=answer,
        em=0.0 if answer is None else exact_match(answer, question.answers, normalisation),
        f1=0.0 if answer is None else f1(answer, question.answers, normalisation),
        plan_valid=plan_score(trajectory.rounds),
        format_valid=float(reading.format_valid),
        searches=sum(len(round_.results) for round_ in trajectory.rounds),
        completion_tokens=sum(trajectory.model_mask),
        transcript=trajectory.transcript,
        inserted=_inserted(trajectory),
        type=question.type,
        level=question.level,
        failed_searches=trajectory.failed_searches,
    )


def attempt_of(prediction: Prediction) -> Attempt:
    """A stored answer as `protocol.diagnosis` reads it."""
    segments, text, position = [], prediction.transcript, 0
    for start, end in (*prediction.inserted, (len(text), len(text))):
        segments += [Segment(text[position:start], (), "model")]
        segments += [Segment(text[start:end], (), "system")]
        position = end
    written = [segment for segment in segments if segment.text]
    return Attempt("", written, prediction.completion_tokens)


def summarise(greedy: Sequence[Prediction], sampled: Sequence[Prediction] | None) -> dict[str, Any]:
    """Means over the questions of one evaluation, each with its 95 % interval.

    Args:
        greedy: One prediction a question, decoded greedily.
        sampled: One sampled prediction for each of the same questions, or None.

    Returns:
        `em`, `em_sampled`, `f1`, `f1_sampled`, `plan_valid`, `format_valid` (means in [0, 1]; the
        sampled ones null without samples; the last two greedy), `n` questions, `searches` and
        `failed_searches` of all answers, `intervals` (metric to `[low, high]`),
        `interval_methods`, and greedy `em` and `n` `by_type` and `by_level`.

    Raises:
        DataEmpty: There are no predictions.
        DataError: `sampled` answers other questions than `greedy`.
    """
    if not greedy:
        raise DataEmpty("nothing to summarise: 0 questions were evaluated; raise evaluate.limit")
    if sampled is not None:
        pair_up(greedy, sampled)
    columns = _columns(greedy, sampled)
    return {
        **{name: _mean(column) if column else None for name, column in columns.items()},
        "n": len(greedy),
        "searches": sum(p.searches for p in (*greedy, *(sampled or ()))),
        "failed_searches": sum(p.failed_searches for p in (*greedy, *(sampled or ()))),
        **describe_intervals({n: mean_interval(column) for n, column in columns.items() if column}),
        "by_type": _by(greedy, "type"),
        "by_level": _by(greedy, "level"),
    }


def compare(
    before_greedy: Sequence[Prediction],
    before_sampled: Sequence[Prediction] | None,
    after_greedy: Sequence[Prediction],
    after_sampled: Sequence[Prediction] | None,
) -> dict[str, Any]:
    """Gain of each metric from `before` to `after`, paired by question id.

    Returns:
        The metrics of `summarise`, each the mean of `after - before` (null where either side has no
        samples), `n`, and `intervals` of the differences (95 %) with their `interval_methods`.

    Raises:
        DataEmpty: There are no predictions.
        DataError: The two evaluations are not of the same questions.
    """
    greedy = pair_up(before_greedy, after_greedy)
    sampled = pair_up(before_sampled, after_sampled) if before_sampled and after_sampled else []
    before = _columns([old for old, _ in greedy], [old for old, _ in sampled])
    after = _columns([new for _, new in greedy], [new for _, new in sampled])
    report: dict[str, Any] = {"n": len(greedy)}
    intervals = {}
    for name, column in before.items():
        if name.endswith("_sampled") and not sampled:
            report[name] = None
            continue
        report[name], intervals[name] = paired_difference(column, after[name])
    return report | describe_intervals(intervals)


def describe_intervals(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """Intervals by metric, as reports hold them: `[low, high]` each, and the method of each."""
    return {
        "intervals": {name: [i.low, i.high] for name, i in intervals.items()},
        "interval_methods": {name: i.method for name, i in intervals.items()},
    }


def pair_up(
    before: Sequence[Prediction], after: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    """Both predictions of each question, in the order of `before`.

    Raises:
        DataError: The ids differ, or one occurs twice.
    """
    by_id = {prediction.id: prediction for prediction in after}
    ids = {prediction.id for prediction in before}
    if ids != set(by_id):
        strays = sorted(ids ^ set(by_id))
        raise DataError(
            f"two evaluations of different questions cannot be compared: {len(strays)} ids are in "
            f"only one of them, such as {strays[0]!r}; evaluate both on the same split and limit"
        )
    if not len(ids) == len(before) == len(after):
        raise DataError(
            f"an evaluation holds a question twice: {len(ids)} ids for {len(before)} and "
            f"{len(after)} predictions; give every question an id of its own"
        )
    return [(prediction, by_id[prediction.id]) for prediction in before]


def _columns(
    greedy: Sequence[Prediction], sampled: Sequence[Prediction] | None
) -> dict[str, list[float]]:
    """`[n]` values of each metric; the sampled ones are empty without samples."""
    return {
        name: [getattr(p, field) for p in ((sampled or ()) if from_samples else greedy)]
        for name, (field, from_samples) in _METRICS.items()
    }


def _by(predictions: Sequence[Prediction], field: str) -> dict[str, dict[str, float]]:
    groups: dict[str, list[float]] = {}
    for prediction in predictions:
        groups.setdefault(getattr(prediction, field), []).append(prediction.em)
    return {
        name: {"em": _mean(values), "n": len(values)}
        for name, values in sorted(groups.items())
        if name
    }


def _inserted(trajectory: Trajectory) -> tuple[tuple[int, int], ...]:
    spans, start = [], len(trajectory.opening)
    for segment in trajectory.segments:
        end = start + len(segment.text)
        if segment.author == "system":
            spans.append((start, end))
        start = end
    return tuple(spans)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
