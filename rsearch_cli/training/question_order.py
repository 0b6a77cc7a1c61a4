"""The order in which a training asks its questions: a matter of the seed alone.

Place in the path: between the question set and TRL's data loader, which walks through it from front
to back. On failure: it has none. TRL's own shuffling draws a new order for every pass through the
questions from a generator that no checkpoint holds: a run that was resumed after the first pass
would ask in another order than one that was not stopped.
"""

from __future__ import annotations


def order_questions(questions: int, count: int, seed: int) -> list[int]:
    """Positions of the questions to ask, one pass through all of them after another.

    Args:
        questions: Number of questions, at least 1.
        count: Number of positions wanted.
        seed: Of the run; the first pass is the one that TRL draws from it.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < count:
        order += torch.randperm(questions, generator=generator).tolist()
    return order[:count]
