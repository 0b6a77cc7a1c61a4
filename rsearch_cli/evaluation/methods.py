"""The methods an agent is compared with: no search, and one search with the question itself.

All methods use the same policy, search layer and limits, and return the same kind of trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.generation import (
    GREEDY,
    Context,
    Generation,
    Prompt,
    PromptRenderer,
    Sampling,
)
from rsearch_cli.policy.prompts import render_question, room_behind
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
        method: One of them.
        rollout: Policy, search layer and recipe.
        questions: `[B]` questions.
        sampling: Greedy or sampled decoding.
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
        _render(rollout.policy, rollout.recipe, q, r)
        for q, r in zip(questions, rounds, strict=True)
    ]
    most = rollout.recipe.rollout.max_new_tokens
    room = rollout.recipe.policy.max_seq_length
    limits = [min(most, room_behind(prompt.tokens, rollout.recipe.policy)) for prompt in prompts]
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
        contexts = [Context(prompt) for prompt in prompts[part]]
        written += rollout.policy.generate(contexts, [ANSWER_CLOSE], limits[part], sampling)
    rows = zip(questions, prompts, rounds, written, strict=True)
    return [_finish(rollout, *row) for row in rows]


def _search(rollout: Rollout, questions: Sequence[Question]) -> list[tuple[SearchRound, ...]]:
    source = next(iter(rollout.recipe.search.sources))
    plans = [SearchPlan((PlanNode("A", question.text, source),)) for question in questions]
    found = rollout.executor.execute(plans)
    return [(SearchRound(plan, (), results),) for plan, results in zip(plans, found, strict=True)]


def render_prompt_for(
    method: str, question: Question, policy: PromptRenderer, recipe: Recipe
) -> Prompt:
    """Return the prompt of a question for a method, as far as it is known before a search."""
    if method == AGENT:
        return render_question(question, policy, recipe)
    return _render(policy, recipe, question, ())


def _render(
    policy: PromptRenderer, recipe: Recipe, question: Question, rounds: tuple[SearchRound, ...]
) -> Prompt:
    if not rounds:
        return policy.render(build_direct_messages(question, policy.forbidden))
    results: tuple[NodeResult, ...] = rounds[0].results
    chars = recipe.search.passage_chars
    block = render_results(results, recipe.protocol, chars, policy.forbidden)
    return policy.render(build_rag_messages(question, block, policy.forbidden))


def _finish(
    rollout: Rollout,
    question: Question,
    prompt: Prompt,
    rounds: tuple[SearchRound, ...],
    written: Generation,
) -> Trajectory:
    return Trajectory(
        question=question,
        prompt_ids=prompt.token_ids,
        opening=prompt.opening,
        segments=(written.as_segment(),),
        rounds=rounds,
        answer=read_bare_answer(written.text),
        stop="answer" if written.stop == "tag" else written.stop,
    )
