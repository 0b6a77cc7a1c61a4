"""Reward part `retrieval`: the share of the supporting titles that the searches found."""

from __future__ import annotations

from collections.abc import Iterable

from rsearch_cli.errors import ServiceFailure
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import NodeResult, Trajectory


def retrieval(trajectory: Trajectory, recipe: Recipe) -> float | None:
    """Return the share in [0, 1] of the supporting titles among the retrieved ones.

    It needs no answer. None if the question names no supporting titles.

    Raises:
        ServiceFailure: A search failed, so that the share is not known.
    """
    if not trajectory.question.supporting_titles:
        return None
    share = title_recall(trajectory)
    if share is None:
        raise ServiceFailure(f"{trajectory.failed_searches} of its searches failed")
    return share


def title_recall(trajectory: Trajectory) -> float | None:
    """Return the share of the supporting titles that were retrieved; None if it is unknown."""
    titles = trajectory.question.supporting_titles
    if not titles or trajectory.failed_searches:
        return None
    return find_titles(titles, [r for round_ in trajectory.rounds for r in round_.results])


def find_titles(titles: Iterable[str], results: Iterable[NodeResult]) -> float:
    """Return the share in [0, 1] of titles that passages have; case and spacing do not count.

    Args:
        titles: At least one title.
        results: Search results.
    """
    wanted = {_fold(title) for title in titles}
    found = {_fold(passage.title) for result in results for passage in result.passages}
    return len(wanted & found) / len(wanted)


def _fold(title: str) -> str:
    return " ".join(title.casefold().split())
