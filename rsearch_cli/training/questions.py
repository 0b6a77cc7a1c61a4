"""Training questions: deduplicated, and in an order that depends on the seed alone.

TRL's own shuffling uses a generator that no checkpoint stores, so a run resumed after the first
pass over the questions would continue in another order than an uninterrupted one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rsearch_cli.errors import DataEmpty
from rsearch_cli.types import Question

logger = logging.getLogger(__name__)


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


def order_questions(questions: int, count: int, seed: int) -> list[int]:
    """Return positions of the questions to ask, as one shuffled pass after another.

    Args:
        questions: Number of questions, at least 1.
        count: Number of positions wanted.
        seed: Seed of the run; the first pass is the one that TRL draws from it.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < count:
        order += torch.randperm(questions, generator=generator).tolist()
    return order[:count]
