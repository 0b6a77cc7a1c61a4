"""What a recipe trains on: questions, token lengths, the exact prompt, and one rollout.

Opens what training opens, in the same order, so the same mistakes are found before the model loads.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.generation import Sampling
from rsearch_cli.policy.loading import describe_backend, load_policy, open_tokenizer
from rsearch_cli.policy.prompts import refuse_long_prompts, render_question
from rsearch_cli.policy.resolve import locate_model
from rsearch_cli.questions.sets import QuestionSet, open_question_set
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.reward.lexical import describe_unspaced
from rsearch_cli.reward.parts import find_parts
from rsearch_cli.rollout.rollout import Rollout
from rsearch_cli.search.executor import open_executor
from rsearch_cli.services.runtime import open_services
from rsearch_cli.training.questions import load_training_questions, require_answers
from rsearch_cli.types import Question, Trajectory

logger = logging.getLogger(__name__)

MEASURED = 1000
"""Maximum number of questions whose lengths are measured."""


def make_preview(recipe: Recipe, samples: int, *, with_rollout: bool) -> dict[str, Any]:
    """Return what a run of the recipe starts with, ready for JSON.

    Args:
        recipe: All settings of the run.
        samples: Number of training questions to list.
        with_rollout: Load the model and sample one completion, as training does.

    Raises:
        RsearchError: The run could not start.
    """
    find_parts(recipe.reward)
    locate_model(recipe.policy.model)
    question_set = open_question_set(recipe.questions, recipe.seed)
    evaluated = question_set.load(recipe.evaluate.split, recipe.evaluate.limit)
    trained_on, choice = load_training_questions(question_set, recipe)
    if recipe.stage == "grpo":
        require_answers(recipe, trained_on, ())
    answers = [question.answers for question in (*trained_on, *evaluated)]
    if warning := describe_unspaced(answers, recipe.reward.normalisation):
        logger.warning(warning)
    recipe, chat_tokenizer, notes = open_tokenizer(recipe, with_model=with_rollout)
    asked = [*evaluated, *(trained_on if recipe.stage == "grpo" else ())]
    refuse_long_prompts(asked, lambda q: render_question(q, chat_tokenizer, recipe), recipe.policy)
    first = trained_on[0]
    prompt = render_question(first, chat_tokenizer, recipe)
    rollout = None
    if with_rollout:
        trajectory = _roll_out(recipe, question_set, first, chat_tokenizer)
        rollout = describe_rollout(trajectory, chat_tokenizer)
    return {
        "questions": question_set.description,
        "model": recipe.policy.model,
        "notes": notes,
        "training": _describe_split(recipe.questions.train_split, trained_on),
        "evaluation": _describe_split(recipe.evaluate.split, evaluated),
        "chosen": choice and choice.as_json(),
        "tokens": _measure(trained_on[:MEASURED], chat_tokenizer, recipe),
        "samples": [_describe_question(question) for question in trained_on[:samples]],
        "prompt": {
            "question": first.id,
            "text": chat_tokenizer.decode(prompt.token_ids),
            "tokens": prompt.tokens,
            "opening": prompt.opening,
        },
        "rollout": rollout,
    }


def describe_rollout(trajectory: Trajectory, chat_tokenizer: ChatTokenizer) -> dict[str, Any]:
    """Return a completion as the loss sees it, ready for JSON.

    Returns:
        `segments` in order, each with `text` (including special tokens), `tokens` and whether it is
        `trained`; `token_ids` and `mask`, both `[L]`; and the outcome.
    """
    question = trajectory.question
    mask = trajectory.model_mask
    return {
        "question": question.id,
        "question_text": question.text,
        "answer": trajectory.answer,
        "references": list(question.answers),
        "stop": trajectory.stop,
        "problems": [problem for round_ in trajectory.rounds for problem in round_.problems],
        "segments": [
            {
                "trained": segment.author == "model",
                "tokens": len(segment.token_ids),
                "text": chat_tokenizer.decode(segment.token_ids),
            }
            for segment in trajectory.segments
        ],
        "trained_tokens": sum(mask),
        "inserted_tokens": len(mask) - sum(mask),
        "token_ids": trajectory.completion_ids,
        "mask": mask,
    }


def _roll_out(
    recipe: Recipe, question_set: QuestionSet, question: Question, chat_tokenizer: ChatTokenizer
) -> Trajectory:
    import torch

    with (
        open_services(recipe, None) as services,
        open_executor(recipe, question_set.corpus, services) as executor,
    ):
        logger.info(f"loading {recipe.policy.model}")
        policy = load_policy(recipe.policy, recipe.seed, chat_tokenizer=chat_tokenizer)
        logger.info(describe_backend(policy))
        rollout = Rollout(policy, executor, recipe)
        torch.manual_seed(recipe.seed)
        sampling = Sampling(recipe.rollout.temperature, recipe.rollout.top_p)
        (trajectory,) = rollout.run([question], sampling)
    return trajectory


def _measure(
    questions: Sequence[Question], chat_tokenizer: ChatTokenizer, recipe: Recipe
) -> dict[str, Any]:
    """Return lengths in tokens, and how many prompts leave too little room for a completion."""
    prompts = [render_question(q, chat_tokenizer, recipe).tokens for q in questions]
    longest = recipe.policy.max_seq_length
    wanted = recipe.rollout.max_new_tokens
    return {
        "measured": len(questions),
        "question": _spread(len(chat_tokenizer.encode(q.text)) for q in questions),
        "prompt": _spread(prompts),
        "max_seq_length": longest,
        "max_new_tokens": wanted,
        "cramped": sum(length + wanted + 1 > longest for length in prompts),
    }


def _spread(lengths: Iterable[int]) -> dict[str, int]:
    """Return minimum, median, 95th percentile (nearest rank) and maximum."""
    ordered = sorted(lengths)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"min": ordered[0], "p50": at(0.5), "p95": at(0.95), "max": ordered[-1]}


def _describe_split(split: str, questions: Sequence[Question]) -> dict[str, Any]:
    return {
        "split": split,
        "n": len(questions),
        "by_type": dict(sorted(Counter(q.type or "not given" for q in questions).items())),
        "by_level": dict(sorted(Counter(q.level or "not given" for q in questions).items())),
    }


def _describe_question(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "type": question.type,
        "level": question.level,
        "question": question.text,
        "answers": list(question.answers),
    }
