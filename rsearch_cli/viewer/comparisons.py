"""The comparisons that the viewer shows: of phases of one source, and of the same phase of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.methods import AGENT
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.samples import by_question
from rsearch_cli.viewer.rows import as_cell
from rsearch_cli.viewer.source import ViewSource

Side = tuple[int, str]

_AFTER = "after-greedy"
"""The phase of a run that is compared with an evaluation of the agent."""


class Comparisons:
    """The comparisons of sources, made again only for predictions that have changed."""

    def __init__(self) -> None:
        self._made: dict[object, dict[str, Any] | None] = {}

    def make(self, sources: Sequence[ViewSource]) -> list[dict[str, Any]]:
        """Compare the predictions of the sources, as described at `schema.Index`."""
        made: dict[object, dict[str, Any] | None] = {}
        comparisons = []
        for sides in _sides(sources):
            answers = [sources[at].answers[phase] for at, phase in sides]
            generations = [sources[at].generation for at, _ in sides]
            key = (sides, *map(len, answers), *generations)
            made[key] = self._made[key] if key in self._made else _compare(*answers)
            if (comparison := made[key]) is not None:
                first, second = ({"source": at, "phase": phase} for at, phase in sides)
                comparisons.append({"first": first, "second": second, **comparison})
        self._made = made
        return comparisons


def _sides(sources: Sequence[ViewSource]) -> Iterator[tuple[Side, Side]]:
    """Yield what is worth comparing; the second side is the later or the better one."""
    for at, source in enumerate(sources):
        for phase in source.answers:
            if phase.startswith("before-"):
                after = phase.replace("before-", "after-", 1)
                if after in source.answers:
                    yield (at, phase), (at, after)
            elif source.is_evaluation and phase != AGENT and AGENT in source.answers:
                yield (at, phase), (at, AGENT)
    for second, later in enumerate(sources):
        for first, earlier in enumerate(sources[:second]):
            for phase in earlier.answers:
                other = phase
                if earlier.is_evaluation != later.is_evaluation:
                    other = {AGENT: _AFTER, _AFTER: AGENT}.get(phase, "")
                if other in later.answers:
                    yield (first, phase), (second, other)


def _compare(first: Sequence[EvalResult], second: Sequence[EvalResult]) -> dict[str, Any] | None:
    """Compare two lists of results over the questions that both have; None if there are none."""
    sides = [_by_question(results) for results in (first, second)]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        return None
    compared = compare(*([r for key in shared for r in side[key]] for side in sides))
    for flip in (*compared["gained"], *compared["lost"]):
        flip |= {name: as_cell(flip[name]) for name in ("question", "first", "second")}
    return {
        **compared,
        "only_first": len(sides[0]) - len(shared),
        "only_second": len(sides[1]) - len(shared),
    }


def _by_question(results: Sequence[EvalResult]) -> dict[tuple[Any, ...], list[EvalResult]]:
    """Return the answers by id, text and references, without questions whose id occurs twice."""
    groups = by_question(results)
    counts = Counter(answers[0].id for answers in groups)
    return {(r.id, r.text, r.references): [r, *more] for r, *more in groups if counts[r.id] == 1}
