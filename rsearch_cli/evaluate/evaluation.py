"""Evaluation: rollouts over questions, measured.

Place in the path: after the rollout; trajectories in, predictions out. On failure: nothing is
caught here; a plan or search that failed is part of its trajectory and counts as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rsearch_cli.evaluate.metrics import Prediction, measure
from rsearch_cli.policy.generation import GREEDY, Sampling
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout import Rollout
from rsearch_cli.types import Question


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The predictions of one policy: greedy, and sampled once a question where asked for."""

    greedy: list[Prediction]
    sampled: list[Prediction] | None


def evaluate_rollouts(
    rollout: Rollout,
    questions: Sequence[Question],
    recipe: Recipe,
    on_done: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Answer every question greedily and, if the recipe asks for it, once by sampling.

    Sampling starts from the recipe's seed, so that two evaluations of one policy agree.

    Args:
        rollout: Rolls out with the policy to be judged.
        questions: What to ask.
        recipe: Its protocol, rollout and evaluate sections are read.
        on_done: Told of how many answers were added.
    """
    import torch

    def answer(sampling: Sampling) -> list[Prediction]:
        done = 0

        def advance(total: int) -> None:
            nonlocal done
            on_done(total - done)
            done = total

        trajectories = rollout.run(questions, sampling, advance)
        return [measure(t, recipe.protocol) for t in trajectories]

    greedy = answer(GREEDY)
    if not recipe.evaluate.sampled:
        return Evaluation(greedy, None)
    torch.manual_seed(recipe.seed)
    return Evaluation(greedy, answer(Sampling(recipe.rollout.temperature, recipe.rollout.top_p)))
