"""Why none of the answers of an evaluation follows the format of the protocol."""

from __future__ import annotations

from collections.abc import Sequence

from rsearch_cli.evaluation.metrics import has_format
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.protocol.format_diagnosis import Attempt, explain_format
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Segment


def find_format_problem(
    results: Sequence[EvalResult], recipe: Recipe, sent_results: str | None = None
) -> str | None:
    """Explain why no answer follows the format; None if one does, or if the method has no format.

    Args:
        results: The results of one method.
        recipe: The settings that the explanation refers to.
        sent_results: How a server was sent search results, `same_turn` or `user_turn`; None for
            local weights.
    """
    answered = [r for r in results if r.failure is None and has_format(r.method)]
    return explain_format([_as_attempt(result) for result in answered], recipe, sent_results)


def _as_attempt(result: EvalResult) -> Attempt:
    segments, text, position = [], result.transcript, 0
    for start, end in (*result.inserted, (len(text), len(text))):
        segments += [Segment(text[position:start], (), "model")]
        segments += [Segment(text[start:end], (), "system")]
        position = end
    written = [segment for segment in segments if segment.text]
    return Attempt("", written, result.completion_tokens)
