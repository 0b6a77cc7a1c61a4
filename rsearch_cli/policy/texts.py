"""Text that stands in for token ids, and the messages that are made of it for a chat server.

A server gives text and counts. So an id is here a `TextToken`, which knows its text: a reply of n
tokens, by the server's count, has n of them, the first with the text and the others empty. So the
rollout's limits hold in the server's tokens, and `rollout` needs to know nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from rsearch_cli.protocol.transcript import THINK

BYTES_PER_TOKEN = 4
"""An estimate, for what the server has not counted."""


class TextToken(int):
    """A token of which only its text is known; all are the integer 0.

    Attributes:
        text: The text that begins here; "" for a token inside of it.
        author: Who wrote it.
        messages: The chat, if this is the first token of a prompt.
        seconds: How long the server took for it.
        failure: Why there is no reply, in one line.
        implied: Whether the server's template writes the text by itself.
        ids: The server's own ids of prompt or text, once they are known.
    """

    text: str
    author: Literal["model", "system"]
    messages: tuple[dict[str, str], ...]
    seconds: float
    failure: str | None
    implied: bool
    ids: tuple[int, ...] | None

    def __new__(
        cls,
        text: str = "",
        author: Literal["model", "system"] = "system",
        messages: Sequence[dict[str, str]] = (),
        seconds: float = 0.0,
        failure: str | None = None,
        *,
        implied: bool = False,
        ids: Sequence[int] | None = None,
    ) -> Self:
        """Make a token; integers are complete before `__init__`."""
        token = super().__new__(cls, 0)
        token.text, token.author, token.messages = text, author, tuple(messages)
        token.seconds, token.failure = seconds, failure
        token.implied, token.ids = implied, None if ids is None else tuple(ids)
        return token


_INSIDE = TextToken()


def heads(context: Sequence[int]) -> list[TextToken]:
    """The tokens of a context at which a text or a chat begins."""
    return [token for token in context if isinstance(token, TextToken) and token is not _INSIDE]


def build_chat(
    context: Sequence[int], *, same_turn: bool, leave_implied: bool = False
) -> list[dict[str, str]]:
    """The messages of a request: the prompt, then what was written and inserted since.

    Args:
        context: A prompt's tokens and all that follow.
        same_turn: All of it is one assistant message, which the server continues: what a model sees
            in training. Else each result block is a user message of its own, and a thought that was
            opened for the model is left to the server's template.
        leave_implied: Leave out what the server's template writes by itself.
    """
    messages: list[dict[str, str]] = []
    prompt = True
    for token in heads(context):
        messages += [dict(message) for message in token.messages]
        left_to_template = (not same_turn and token.text == THINK and prompt) or (
            leave_implied and token.implied
        )
        if not token.text or left_to_template:
            continue
        role = "user" if not same_turn and token.author == "system" else "assistant"
        if not prompt and messages[-1]["role"] == role:
            messages[-1]["content"] += token.text
        else:
            messages.append({"role": role, "content": token.text})
        prompt = False
    return messages


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text; at least 1."""
    return max(1, -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN))


def fill(tokens: int) -> list[TextToken]:
    """The tokens of a text behind its first; none for a text without tokens."""
    return [_INSIDE] * max(0, tokens - 1)


def ends_opened(context: Sequence[int]) -> bool:
    """Whether the last text of a context is an opened thought."""
    texts = (t.text for t in reversed(context) if isinstance(t, TextToken) and t.text)
    return next(texts, "") == THINK
