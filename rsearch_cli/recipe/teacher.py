"""The recipe by which a teacher answers: that of the run, without the limits of its policy."""

from __future__ import annotations

from rsearch_cli.recipe.schema import Recipe

CONTEXT_TOKENS = 131072
"""No limit: how much a server can read is its own affair."""


def recipe_of_teacher(recipe: Recipe) -> Recipe:
    """Return the recipe with `sft.teacher` as its policy.

    Context length and memory of the policy do not limit a server, and a teacher needs the
    instructions that a recipe may leave out for its policy.
    """
    teacher = recipe.sft.teacher
    limits = {"endpoint": teacher, "max_seq_length": CONTEXT_TOKENS}
    batches = {"micro_batch": teacher.service.concurrency, "micro_batch_tokens": None}
    instructions = recipe.protocol.system_prompt or None
    sections = {
        "policy": recipe.policy.model_copy(update=limits),
        "protocol": recipe.protocol.model_copy(update={"system_prompt": instructions}),
        "rollout": recipe.rollout.model_copy(update=batches),
    }
    return recipe.model_copy(update=sections)
