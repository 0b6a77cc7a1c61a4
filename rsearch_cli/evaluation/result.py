"""One row of `predictions.jsonl`: what one method made of one question.

Place in the path: trajectories in, rows out; results and comparisons are worked out from rows
alone. On failure: a stored row that cannot be read raises `DataMalformed`; where too much failed
there is a `FailureShareExceeded`. What could not be measured is None, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rsearch_cli.errors import DataMalformed, FailureShareExceeded
from rsearch_cli.evaluation.baselines import AGENT, DIRECT
from rsearch_cli.evaluation.metrics import Prediction, measure
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.reward.lexical import Normalisation
from rsearch_cli.types import Trajectory


@dataclass(frozen=True, slots=True)
class EvalResult:
    """An answered question, or one that the policy's server gave no answer to.

    Attributes:
        method: One of `baselines.METHODS`.
        prediction: The answer and its lexical scores.
        judge: The judge's score in [0, 1]; None without a judge, or if there was no verdict.
        judged: Whether a verdict was wanted.
        title_recall: Share in [0, 1] of the supporting titles among the titles found; None where
            the set names none, the method does not search, or a search failed.
        seconds: With a server, of its own calls and searches, without any waiting in line; with
            local weights, of the whole batch it was asked in.
        usd: What was paid, its share of the batch's bill.
        search_failure: Why the last of its failed searches failed, or None.
        failure: Why the policy's server gave no answer, or None. Such a row is counted and left out
            of every mean.
    """

    method: str
    prediction: Prediction
    judge: float | None = None
    judged: bool = False
    title_recall: float | None = None
    seconds: float = 0.0
    usd: float = 0.0
    search_failure: str | None = None
    failure: str | None = None

    @property
    def unscored(self) -> bool:
        """Whether a verdict was wanted and could not be had."""
        return self.judged and self.judge is None

    def as_json(self) -> dict[str, Any]:
        """The row to store, which `from_json` reads."""
        own = asdict(self)
        del own["prediction"]
        return {"method": own.pop("method"), **self.prediction.as_json(), **own}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EvalResult:
        """Read what `as_json` wrote.

        Raises:
            DataMalformed: A field is missing or unknown.
        """
        names = set(cls.__dataclass_fields__) - {"prediction"}
        own = {name: value for name, value in row.items() if name in names}
        if missing := names - set(own):
            raise DataMalformed(
                f"not a stored answer: missing {sorted(missing)}; evaluate again with this version"
            )
        rest = {name: value for name, value in row.items() if name not in names}
        return cls(prediction=Prediction.from_json(rest), **own)


def measure_record(
    method: str,
    trajectory: Trajectory,
    protocol: ProtocolConfig,
    seconds: float,
    failure: str | None,
    normalisation: Normalisation = "squad",
) -> EvalResult:
    """Score one trajectory by all that needs no judge."""
    results = [result for round_ in trajectory.rounds for result in round_.results]
    errors = [result.error for result in results if result.error is not None]
    return EvalResult(
        method=method,
        prediction=measure(trajectory, protocol, normalisation),
        title_recall=None if method == DIRECT else title_recall(trajectory),
        seconds=round(seconds, 4),
        search_failure=errors[-1] if errors else None,
        failure=failure,
    )


def title_recall(trajectory: Trajectory) -> float | None:
    """Share of the supporting titles that the searches found; None if that cannot be told."""
    wanted = {_fold(title) for title in trajectory.question.supporting_titles}
    if not wanted or trajectory.failed_searches:
        return None
    results = (result for round_ in trajectory.rounds for result in round_.results)
    found = {_fold(passage.title) for result in results for passage in result.passages}
    return len(wanted & found) / len(wanted)


def search_seconds(trajectory: Trajectory) -> float:
    """How long the searches of one question take by themselves: the longest chain of each plan."""
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


def has_format(method: str) -> bool:
    """Whether plan and format mean something for a method: only the agent writes them."""
    return method == AGENT


def refuse_failed(records: Sequence[EvalResult], most: float, verdict_failure: str | None) -> None:
    """Refuse to go on when too much of an evaluation has failed: it would be about the services.

    Args:
        records: All rows of a method up to now.
        most: `budget.max_failed_share`.
        verdict_failure: Why the last verdict could not be had.

    Raises:
        FailureShareExceeded: Naming what failed, how often, and the last reason.
    """
    searches = sum(r.prediction.searches for r in records)
    failed_searches = sum(r.prediction.failed_searches for r in records)
    judged, unscored = sum(r.judged for r in records), sum(r.unscored for r in records)
    answers = [r.failure for r in records if r.failure]
    reasons = [r.search_failure for r in records if r.search_failure]
    for what, failed, all_, why in (
        ("answers", len(answers), len(records), answers[-1] if answers else None),
        ("searches", failed_searches, searches, reasons[-1] if reasons else None),
        ("verdicts", unscored, judged, verdict_failure),
    ):
        if failed > most * all_:
            raise FailureShareExceeded(
                f"{failed} of {all_} {what} of the evaluation failed, a share of "
                f"{failed / all_:.2g} where budget.max_failed_share is {most:g}; the last one: "
                f"{why}; mend that and start again: what was answered before is kept"
            )


def _fold(title: str) -> str:
    return " ".join(title.casefold().split())
