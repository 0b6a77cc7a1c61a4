"""Prompts: how a recipe's are built, whether a model can hold them, and whether they leave room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rsearch_cli.errors import PolicyError
from rsearch_cli.policy.chat_template import Chat
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.generation import PromptPolicy
from rsearch_cli.protocol.prompt import build_messages, with_examples_in_system_prompt
from rsearch_cli.recipe.policy import PolicyConfig
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

Prompt = tuple[list[int], str]
"""`[p]` ids, unpadded, and what they have already opened for the model (`<think>`), or ""."""

_PROBE = Question("probe", "Who?", ())


def encode_question(question: Question, policy: PromptPolicy, recipe: Recipe) -> Prompt:
    """The prompt that a rollout starts from."""
    messages = build_messages(question, recipe.protocol, recipe.rollout.max_turns, policy.forbidden)
    prompt_ids, opening = policy.encode_prompt(messages)
    if recipe.rollout.open_thought and not opening:
        opening = "<think>"
        prompt_ids = prompt_ids + policy.encode_inserted(opening)
    return prompt_ids, opening


def fit_recipe(recipe: Recipe, chat_tokenizer: ChatTokenizer) -> tuple[Recipe, list[str]]:
    """Give up what a model's chat template cannot hold of a recipe's prompts.

    Args:
        recipe: Its protocol and rollout sections are read.
        chat_tokenizer: Its chat template may be amended.

    Returns:
        The recipe that can be kept, and one line for everything that is not as was asked for.
    """
    template, notes = chat_tokenizer.template, list(chat_tokenizer.template.notes)
    if recipe.rollout.open_thought:
        notes += [note for note in [template.begin_with_thought()] if note]
    elif template.closes_thought():
        notes.append(
            "chat template: an empty thought is closed before the model's turn; with "
            "rollout.open_thought=true that turn begins with an open one"
        )
    recipe, lost = fit_examples(recipe, template.describe_problem)
    notes += lost
    if recipe.protocol.system_prompt == "" and (own := template.own_instructions()):
        notes.append(
            "chat template: protocol.system_prompt leaves the system message out, and the template "
            f"writes one of its own ({' '.join(own.split())[:60]!r})"
        )
    return recipe, notes


def fit_examples(
    recipe: Recipe, describe_problem: Callable[[Chat], str | None]
) -> tuple[Recipe, list[str]]:
    """Put worked examples into the system prompt if a chat template cannot hold them as turns.

    Args:
        recipe: Its protocol and rollout sections are read.
        describe_problem: Says why a chat cannot be rendered as it is meant, or None.

    Returns:
        The recipe that can be kept, and the line that says so, if there is one to say.
    """
    rules = recipe.protocol
    if not rules.example_turns:
        return recipe, []
    chat = build_messages(_PROBE, rules, recipe.rollout.max_turns)
    loss = describe_problem(chat)
    if loss is None:
        return recipe, []
    fitted = with_examples_in_system_prompt(rules)
    return recipe.model_copy(update={"protocol": fitted}), [
        f"chat template: it cannot hold worked examples as earlier turns ({loss}); "
        "examples in the system prompt replace them (protocol.example_turns)"
    ]


def room_behind(context: Sequence[int], policy: PolicyConfig) -> int:
    """Tokens that a row can still take; one more is put by for the eos that closes it."""
    return policy.max_seq_length - len(context) - 1


def require_room(
    question: Question, prompt_ids: Sequence[int], policy: PolicyConfig, others: int = 0
) -> None:
    """Refuse a prompt behind which nothing could be written.

    Raises:
        PolicyError: Naming the question, its length, the room and the setting.
    """
    if room_behind(prompt_ids, policy) < 1:
        more = f" (and {others:,} more like it)" if others else ""
        raise PolicyError(
            f"question {question.id}{more}: its prompt has {len(prompt_ids):,} tokens, and "
            f"policy.max_seq_length={policy.max_seq_length} leaves room for "
            f"{policy.max_seq_length - 2:,}; raise that or drop the question"
        )


def refuse_long_prompts(
    questions: Iterable[Question], encode: Callable[[Question], Prompt], policy: PolicyConfig
) -> None:
    """Refuse questions whose prompts leave no room to answer, before their turn comes.

    Only those are encoded that could be too long. A token stands for at least one byte of the
    question, or of its normalised form, which is assumed to be no more than twice as long.

    Args:
        questions: All that will be asked.
        encode: Gives a question's prompt.
        policy: Its `max_seq_length` is read.

    Raises:
        PolicyError: Naming the first of them, and how many there are.
    """
    room = room_behind(encode(_PROBE)[0], policy)
    long = [q for q in questions if 2 * len(q.text.encode("utf-8", "replace")) >= room]
    prompts = [(question, encode(question)[0]) for question in long]
    refused = [(q, ids) for q, ids in prompts if room_behind(ids, policy) < 1]
    if refused:
        require_room(*refused[0], policy, len(refused) - 1)
