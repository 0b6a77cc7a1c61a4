"""Prompts: how a question is rendered, whether a model can hold it, and whether it leaves room."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rsearch_cli.errors import QuestionTooLong
from rsearch_cli.policy.chat_template import Chat
from rsearch_cli.policy.chat_tokenizer import ChatTokenizer
from rsearch_cli.policy.generation import Prompt, PromptRenderer
from rsearch_cli.protocol.prompt import build_messages, with_examples_in_system_prompt
from rsearch_cli.recipe.policy import PolicyConfig
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.types import Question

_PROBE = Question("probe", "Who?", ())


def render_question(question: Question, policy: PromptRenderer, recipe: Recipe) -> Prompt:
    """Render the prompt that a rollout of a question starts from."""
    messages = build_messages(question, recipe.protocol, recipe.rollout.max_turns, policy.forbidden)
    return policy.render(messages, open_thought=recipe.rollout.open_thought)


def fit_recipe(recipe: Recipe, chat_tokenizer: ChatTokenizer) -> tuple[Recipe, list[str]]:
    """Adapt a recipe's prompts to what a model's chat template can represent.

    Args:
        recipe: Its protocol and rollout sections are read.
        chat_tokenizer: Its chat template may be amended.

    Returns:
        The adapted recipe, and one line for each deviation from the given one.
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
    """Move worked examples into the system prompt if a chat template cannot hold them as turns.

    Args:
        recipe: Its protocol and rollout sections are read.
        describe_problem: Returns why a chat is not rendered faithfully, or None.

    Returns:
        The adapted recipe, and a line about the change, if there was one.
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


def room_behind(tokens: int, policy: PolicyConfig) -> int:
    """Tokens that still fit behind a context of `tokens`; one is reserved for the closing eos."""
    return policy.max_seq_length - tokens - 1


def require_room(question: Question, prompt: Prompt, policy: PolicyConfig, others: int = 0) -> None:
    """Refuse a prompt that leaves no room for an answer.

    Raises:
        QuestionTooLong: With the question, its length, the limit and the setting.
    """
    if room_behind(prompt.tokens, policy) < 1:
        more = f" (and {others:,} more like it)" if others else ""
        raise QuestionTooLong(
            f"question {question.id}{more}: its prompt has {prompt.tokens:,} tokens, and "
            f"policy.max_seq_length={policy.max_seq_length} leaves room for "
            f"{policy.max_seq_length - 2:,}; raise it or drop the question"
        )


def refuse_long_prompts(
    questions: Iterable[Question], render: Callable[[Question], Prompt], policy: PolicyConfig
) -> None:
    """Refuse questions whose prompts leave no room for an answer, before any is asked.

    Only prompts that could be too long are rendered. A token stands for at least one byte of the
    question, or of its normalised form, which is assumed to be at most twice as long.

    Args:
        questions: All questions to be asked.
        render: Returns a question's prompt.
        policy: Its `max_seq_length` is read.

    Raises:
        QuestionTooLong: With the first such question, and how many there are.
    """
    room = room_behind(render(_PROBE).tokens, policy)
    long = [q for q in questions if 2 * len(q.text.encode("utf-8", "replace")) >= room]
    prompts = [(question, render(question)) for question in long]
    refused = [(q, prompt) for q, prompt in prompts if room_behind(prompt.tokens, policy) < 1]
    if refused:
        require_room(*refused[0], policy, len(refused) - 1)
