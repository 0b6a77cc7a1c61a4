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
    """Questions that one method is asked at once.

    Attributes:
        method: One of `methods.METHODS`.
        questions: The questions.
        sample: Which sample of each this is, from 0; None for the greedy answer.
    """

    method: str
    questions: Sequence[Question]
    sample: int | None = None


def plan_batches(spec: EvalSpec, questions: Sequence[Question]) -> list[Batch]:
    """Return every batch in the order of asking, which depends on the settings alone."""
    starts = range(0, len(questions), spec.batch_size)
    samples = (None,) if spec.samples is None else range(spec.samples)
    return [
        Batch(method, questions[start : start + spec.batch_size], sample)
        for method in spec.methods
        for sample in samples
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

    An incomplete batch is asked again as a whole: decoding in half precision may depend on what
    else is in the batch, and the samples of a batch share a generator.
    """
    kept: list[EvalResult] = []
    for done, batch in enumerate(batches):
        rows = results[len(kept) : len(kept) + len(batch.questions)]
        expected = [(batch.method, batch.sample, question.id) for question in batch.questions]
        if [(row.method, row.sample, row.id) for row in rows] != expected:
            return kept, done
        kept += rows
    return kept, len(batches)
