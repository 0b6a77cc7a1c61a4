"""The methods an agent is compared with: no search, and one search with the question itself.

All methods use the same policy, search layer and limits, and return the same kind of trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.generation import GREEDY, Generation, PromptPolicy, Sampling
from rsearch_cli.policy.prompts import Prompt, encode_question
from rsearch_cli.protocol.baseline_prompts import (
    build_direct_messages,
    build_rag_messages,
    read_bare_answer,
)
from rsearch_cli.protocol.results import render_results
from rsearch_cli.protocol.transcript import ANSWER_CLOSE
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.types import (
    NodeResult,
    PlanNode,
    Question,
    SearchPlan,
    SearchRound,
    Segment,
    Trajectory,
)

AGENT, RAG, DIRECT = "rsearch", "rag", "direct"
METHODS = (AGENT, RAG, DIRECT)
"""`rsearch` plans, searches and answers; `rag` answers from one search with the question itself in
the recipe's first source; `direct` answers from memory."""


def run_method(
    method: str,
    rollout: Rollout,
    questions: Sequence[Question],
    sampling: Sampling = GREEDY,
    on_done: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Answer questions by one of `METHODS`.

    Args:
        method: One of them; `rag` and `direct` always decode greedily.
        rollout: Policy, search layer and recipe.
        questions: `[B]` questions.
        sampling: How the agent's tokens are chosen.
        on_done: Called by the agent's rollout with the number of finished questions.

    Returns:
        `[B]` trajectories, in order; those of `rag` have one round, those of `direct` none.

    Raises:
        PolicyError: A prompt leaves no room for an answer.
    """
    if method == AGENT:
        return rollout.run(questions, sampling, on_done)
    rounds = _search(rollout, questions) if method == RAG else [()] * len(questions)
    prompts = [
        _encode(rollout.policy, rollout.recipe, q, r)
        for q, r in zip(questions, rounds, strict=True)
    ]
    most = rollout.recipe.rollout.max_new_tokens
    room = rollout.recipe.policy.max_seq_length
    limits = [min(most, room - len(ids) - 1) for ids, _ in prompts]
    for question, limit in zip(questions, limits, strict=True):
        if limit < 1:
            raise PolicyError(
                f"question {question.id}: its prompt for method {method} leaves no room in "
                f"policy.max_seq_length {room}; raise it, or lower search.passage_chars"
            )
    # Not more at once than in a rollout: memory was planned for that.
    size = rollout.recipe.rollout.micro_batch
    written: list[Generation] = []
    for start in range(0, len(questions), size):
        part = slice(start, start + size)
        contexts = [ids for ids, _ in prompts[part]]
        written += rollout.policy.generate(contexts, [ANSWER_CLOSE], limits[part])
    rows = zip(questions, prompts, rounds, written, strict=True)
    return [_finish(rollout, *row) for row in rows]


def _search(rollout: Rollout, questions: Sequence[Question]) -> list[tuple[SearchRound, ...]]:
    source = next(iter(rollout.recipe.search.sources))
    plans = [SearchPlan((PlanNode("A", question.text, source),)) for question in questions]
    found = rollout.executor.execute(plans)
    return [(SearchRound(plan, (), results),) for plan, results in zip(plans, found, strict=True)]


def encode_prompt_for(
    method: str, question: Question, policy: PromptPolicy, recipe: Recipe
) -> Prompt:
    """Return the prompt of a question for a method, as far as it is known before a search."""
    if method == AGENT:
        return encode_question(question, policy, recipe)
    return _encode(policy, recipe, question, ())


def _encode(
    policy: PromptPolicy, recipe: Recipe, question: Question, rounds: tuple[SearchRound, ...]
) -> Prompt:
    if not rounds:
        return policy.encode_prompt(build_direct_messages(question, policy.forbidden))
    results: tuple[NodeResult, ...] = rounds[0].results
    chars = recipe.search.passage_chars
    block = render_results(results, recipe.protocol, chars, policy.forbidden)
    return policy.encode_prompt(build_rag_messages(question, block, policy.forbidden))


def _finish(
    rollout: Rollout,
    question: Question,
    prompt: tuple[list[int], str],
    rounds: tuple[SearchRound, ...],
    written: Generation,
) -> Trajectory:
    ids, opening = prompt
    return Trajectory(
        question=question,
        prompt_ids=tuple(ids),
        opening=opening,
        segments=(Segment(written.text, written.token_ids, "model"),),
        rounds=rounds,
        answer=read_bare_answer(written.text),
        stop="answer" if written.stop == "tag" else written.stop,
    )
