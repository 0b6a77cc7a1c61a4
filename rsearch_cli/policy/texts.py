"""Text that stands in for token ids, and the messages and replies of a chat server.

Place in the path: below `endpoint`, which sends what is built here and reads what comes back. On
failure: none.

A server gives text and counts, not ids. So an id is here a `TextToken`, which knows its text: a
reply of n tokens, by the server's count, has n of them, the first with the text and the others
empty. With that the rollout's limits hold in the server's tokens, and `rollout` needs to know
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from rsearch_cli.recipe.policy import Endpoint

BYTES_PER_TOKEN = 4
"""An estimate, for what the server has not counted."""

THINK = "<think>"
"""What a rollout may open for the model."""


class TextToken(int):
    """A token of which only its text is known; all are the integer 0.

    Attributes:
        text: The text that begins here; "" for a token inside of it.
        author: Who wrote it.
        messages: The chat, if this is the first token of a prompt.
        seconds: How long the server took for it.
        failure: Why there is no reply, in one line.
    """

    text: str
    author: Literal["model", "system"]
    messages: tuple[dict[str, str], ...]
    seconds: float
    failure: str | None

    def __new__(
        cls,
        text: str = "",
        author: Literal["model", "system"] = "system",
        messages: Sequence[dict[str, str]] = (),
        seconds: float = 0.0,
        failure: str | None = None,
    ) -> Self:
        """Make a token; integers are complete before `__init__`."""
        token = super().__new__(cls, 0)
        token.text, token.author, token.messages = text, author, tuple(messages)
        token.seconds, token.failure = seconds, failure
        return token


_INSIDE = TextToken()


def build_chat(context: Sequence[int], endpoint: Endpoint) -> list[dict[str, str]]:
    """The messages of a request: the prompt, then what was written and inserted since.

    With `results: user_turn` each result block is a user message of its own, and a thought that was
    opened for the model is left to the server's template. With `same_turn` all of it is one
    assistant message, which the server goes on with: what a model sees in training.

    Args:
        context: A prompt's tokens and all that follow.
        endpoint: Its `results` is read.
    """
    messages: list[dict[str, str]] = []
    prompt, own_turn = True, endpoint.results == "user_turn"
    for token in context:
        if token is _INSIDE or not isinstance(token, TextToken):
            continue
        messages += [dict(message) for message in token.messages]
        if not token.text or (own_turn and token.text == THINK and prompt):
            continue
        role = "user" if own_turn and token.author == "system" else "assistant"
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
    """The tokens of a text behind its first."""
    return [_INSIDE] * (tokens - 1)


def ends_opened(context: Sequence[int]) -> bool:
    """Whether the last text of a context is an opened thought."""
    texts = (t.text for t in reversed(context) if isinstance(t, TextToken) and t.text)
    return next(texts, "") == THINK


def find_stop(
    text: str, stops: Sequence[str], finish: str, stop_string: str | None
) -> tuple[str, Literal["tag", "eos", "length"]]:
    """Cut a reply behind its first stop string, which servers leave out of the text.

    Where a server does not say what ended a reply, the tag that is open at its end is taken to be
    the one that was closed.

    Args:
        text: What the server sent.
        stops: What it was told to stop at, such as `</search>`.
        finish: Its `finish_reason`.
        stop_string: See `Completion`.

    Returns:
        The text with the stop string at its end, if there is one, and why it ended.
    """
    if (cut := cut_behind(text, stops)) is not None:
        return cut, "tag"
    if finish == "length":
        return text, "length"
    if stop_string in stops:
        return f"{text}{stop_string}", "tag"
    opened = {stop: text.rfind(stop.replace("</", "<")) for stop in stops}
    last = max(opened, key=lambda stop: opened[stop])
    if stop_string is None and finish == "stop" and opened[last] >= 0:
        return text + last, "tag"
    return text, "eos"


def cut_behind(text: str, stops: Sequence[str]) -> str | None:
    """The text up to the end of its first stop string; None if it has none."""
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else None
