"""Evaluation: rollouts over questions, measured.

Place in the path: after the rollout; trajectories in, predictions out. On failure: nothing is
caught here. A plan that is not valid counts as it is; searches that failed are counted, and too
many of them end the evaluation, because its figures would be about the service.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rsearch_cli.distributed import collect, fail_together, share
from rsearch_cli.errors import FailureShareExceeded
from rsearch_cli.evaluation.metrics import Prediction, measure
from rsearch_cli.policy.generation import GREEDY, Sampling
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.types import Question, Trajectory


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
        recipe: Its protocol, reward, rollout and evaluate sections are read.
        on_done: Told of how many answers were added.

    Raises:
        FailureShareExceeded: More searches failed than `budget.max_failed_share` lets pass.
    """
    import torch

    greedy = answer_questions(rollout, questions, recipe, GREEDY, on_done)
    if not recipe.evaluate.sampled:
        return Evaluation(greedy, None)
    torch.manual_seed(recipe.seed)
    sampling = Sampling(recipe.rollout.temperature, recipe.rollout.top_p)
    return Evaluation(greedy, answer_questions(rollout, questions, recipe, sampling, on_done))


def answer_questions(
    rollout: Rollout,
    questions: Sequence[Question],
    recipe: Recipe,
    sampling: Sampling = GREEDY,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Prediction]:
    """Answer every question once, and measure the answers.

    Where several processes train together each answers its part, and all get all predictions.

    Args:
        rollout: Rolls out with the policy to be judged.
        questions: What to ask.
        recipe: Its protocol, reward and budget sections are read.
        sampling: How the next token is chosen.
        on_done: Told of how many answers were added.

    Raises:
        FailureShareExceeded: More searches failed than `budget.max_failed_share` lets pass.
    """
    done = 0

    def advance(total: int) -> None:
        nonlocal done
        on_done(total - done)
        done = total

    with fail_together():
        trajectories = rollout.run(share(questions), sampling, advance)
        refuse_failures(trajectories, recipe.budget.max_failed_share)
    return collect([measure(t, recipe.protocol, recipe.reward.normalisation) for t in trajectories])


def refuse_failures(trajectories: Sequence[Trajectory], most: float) -> None:
    """Refuse to measure answers when too many of their searches failed.

    Args:
        trajectories: All answers of an evaluation.
        most: Share in [0, 1] of their searches that may have failed.

    Raises:
        FailureShareExceeded: Naming how many failed, and the last reason.
    """
    results = [r for t in trajectories for round_ in t.rounds for r in round_.results]
    errors = [r.error for r in results if r.error is not None]
    if errors and len(errors) > most * len(results):
        raise FailureShareExceeded(
            f"{len(errors)} of {len(results)} searches of the evaluation failed, a share of "
            f"{len(errors) / len(results):.2g} where budget.max_failed_share is {most:g}; the last "
            f"one: {errors[-1]}"
        )
