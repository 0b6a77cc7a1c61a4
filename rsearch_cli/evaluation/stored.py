"""The stored answers of an evaluation, and the batches in which questions are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsearch_cli.errors import DataMalformed
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.spec import EvalSpec
from rsearch_cli.runs.evaluation_folder import EvaluationFolder
from rsearch_cli.runs.files import ANSWERS
from rsearch_cli.types import Question


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions that one method is asked at once."""

    method: str
    questions: Sequence[Question]


def plan_batches(spec: EvalSpec, questions: Sequence[Question]) -> list[Batch]:
    """Return every batch in the order of asking, which depends on the settings alone."""
    starts = range(0, len(questions), spec.batch_size)
    return [
        Batch(method, questions[start : start + spec.batch_size])
        for method in spec.methods
        for start in starts
    ]


def read_results(folder: EvaluationFolder) -> list[EvalResult]:
    """Return the stored results, in order.

    Raises:
        DataMalformed: A row is not a stored prediction; the line is named.
    """
    results = []
    for number, row in enumerate(folder.read_answers(), 1):
        try:
            results.append(EvalResult.from_json(row))
        except (DataMalformed, ValueError, TypeError, AttributeError) as error:
            raise DataMalformed(
                f"{folder.path / ANSWERS}, line {number}: {error}; start over with --overwrite"
            ) from error
    return results


def complete_batches(
    results: Sequence[EvalResult], batches: Sequence[Batch]
) -> tuple[list[EvalResult], int]:
    """Return the results of the leading complete batches, and how many batches those are.

    An incomplete batch is asked again as a whole: greedy decoding in half precision may depend on
    what else is in the batch.
    """
    kept: list[EvalResult] = []
    for done, batch in enumerate(batches):
        rows = results[len(kept) : len(kept) + len(batch.questions)]
        expected = [(batch.method, question.id) for question in batch.questions]
        if [(row.method, row.id) for row in rows] != expected:
            return kept, done
        kept += rows
    return kept, len(batches)
