"""Training questions: deduplicated, chosen by pass rate, and in an order that the seed decides.

TRL's own shuffling uses a generator that no checkpoint stores, so a run resumed after the first
pass over the questions would continue in another order than an uninterrupted one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rsearch_cli.distributed import world_size
from rsearch_cli.errors import DataEmpty, RecipeValueError
from rsearch_cli.questions.profile import (
    Choice,
    choose_questions,
    find_profile,
    log_choice,
    read_profile,
)
from rsearch_cli.questions.sets import QuestionSet
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

logger = logging.getLogger(__name__)


def load_training_questions(
    question_set: QuestionSet, recipe: Recipe, stored: Path | None = None
) -> tuple[list[Question], Choice | None]:
    """Load the distinct training questions; for GRPO, choose and order them by pass rate.

    Args:
        question_set: The opened set.
        recipe: Its questions section, its stage and its seed are read.
        stored: A run's own copy of the pass rates, used instead of `questions.profile` if it
            exists: a resumed run continues with the questions that it started with.

    Returns:
        The questions; and what was chosen, or None if the recipe does not choose.

    Raises:
        DataError: The questions or the pass rates cannot be read, or do not belong together.
        DataEmpty: There is no question to train on.
    """
    config = recipe.questions
    questions = distinct_questions(question_set.load(config.train_split, config.max_samples))
    if recipe.stage != "grpo" or not config.uses_profile:
        return questions, None
    profile = read_profile(stored if stored and stored.exists() else find_profile(config))
    choice = choose_questions(questions, profile, config, recipe.seed)
    log_choice(choice, recipe)
    train = recipe.train
    rollouts = train.max_steps * train.batch_size * train.gradient_accumulation_steps
    asked = rollouts * world_size() // train.num_generations
    if config.order == "easy_to_hard" and asked < len(choice.questions):
        logger.warning(
            f"questions.order is easy_to_hard, and train.max_steps {train.max_steps} ask only the "
            f"{asked} easiest of {len(choice.questions)} questions; lower questions.max_samples, "
            "or narrow questions.pass_rate"
        )
    return list(choice.questions), choice


def distinct_questions(questions: Sequence[Question]) -> list[Question]:
    """Return the questions without duplicate texts, since TRL identifies a prompt by its text.

    Raises:
        DataEmpty: There is no question to train on.
    """
    distinct = {q.text: q for q in reversed(questions)}
    if not distinct:
        raise DataEmpty("the training split has no questions; check questions.difficulty")
    if duplicates := len(questions) - len(distinct):
        logger.info(f"dropped {duplicates} duplicate training questions")
    return [q for q in questions if distinct[q.text] is q]


def require_answers(
    recipe: Recipe, trained: Sequence[Question], validated: Sequence[Question]
) -> None:
    """Refuse questions without a reference answer where GRPO needs one.

    Args:
        recipe: Its train and reward sections are read.
        trained: Questions to train on.
        validated: Questions of the validation slice.

    Raises:
        RecipeValueError: Answers are part of the reward, or of the choice of the best adapter.
    """
    reward = recipe.reward
    missing = sum(not question.answers for question in trained)
    if missing and (reward.rewards_answers or reward.answer == "judge"):
        raise RecipeValueError(
            f"{missing} of the {len(trained)} training questions have no answer, which the reward "
            "needs; give them one, or train on the searches alone: reward.answer=f1, "
            "reward.curriculum_steps=0, reward.weights.answer=0 and reward.extra={retrieval: 1}"
        )
    if validated and not any(question.answers for question in validated):
        raise RecipeValueError(
            "no question of evaluate.slice_split has an answer, and evaluate.every_steps keeps the "
            "adapter with the best F1; set evaluate.every_steps=null"
        )


def order_questions(questions: int, count: int, seed: int, *, shuffled: bool = True) -> list[int]:
    """Return positions of the questions to ask, as one pass after another.

    Args:
        questions: Number of questions, at least 1.
        count: Number of positions wanted.
        seed: Seed of the run; the first pass is the one that TRL draws from it.
        shuffled: Whether every pass has an order of its own; else all have that of the questions.
    """
    import torch

    if not shuffled:
        return [position % questions for position in range(count)]
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < count:
        order += torch.randperm(questions, generator=generator).tolist()
    return order[:count]
