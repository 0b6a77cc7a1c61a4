"""Contexts as messages for a chat server, and its replies as the text that the model wrote.

Servers send thoughts separately, omit a tag that their chat template wrote, omit a stop string, or
write past it. What can be determined is restored; nothing else is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rsearch_cli.policy.generation import Context, Generation
from rsearch_cli.protocol.transcript import TAG, THINK
from rsearch_cli.services.completion import LENGTH

THINK_CLOSE = "</think>"

BYTES_PER_TOKEN = 4
"""Estimate for text whose tokens the server does not count."""

Stop = Literal["tag", "eos", "length"]

# Finish reasons that rule out a stop string, whichever tag is open.
_NO_STOP = re.compile(r"filter|safety|refus|recitation|prohibited|blocklist|spii|tool|function")
_HALF_TAG = re.compile(r"\s*<[^<>]{0,10}")


class ReplyText(NamedTuple):
    """The text of a reply, put together from thought and content.

    Attributes:
        text: All of it.
        template_chars: Length of the prefix that the server's chat template wrote.
        thought_chars: Length of the prefix that the server sent as thought; the server does not
            apply stop strings to it.
    """

    text: str
    template_chars: int = 0
    thought_chars: int = 0


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text; at least 1."""
    return max(1, -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN))


def to_messages(
    context: Context, *, same_turn: bool, omit_template: bool = False
) -> list[dict[str, str]]:
    """Build the messages of a request: the prompt, then everything written and inserted since.

    Args:
        context: What the model is to continue.
        same_turn: Put all of it into one assistant message, which the server continues, as in
            training. Otherwise every result block becomes a user message, and the opening of the
            turn is left to the server's chat template.
        omit_template: Leave out text that the server's chat template writes.
    """
    messages = [dict(message) for message in context.prompt.messages]
    pieces: list[tuple[str, str]] = []
    if same_turn and context.prompt.added_opening:
        pieces.append(("assistant", context.prompt.opening))
    for segment in context.segments:
        role = "user" if segment.author == "system" and not same_turn else "assistant"
        start = segment.template_chars if omit_template else 0
        pieces.append((role, segment.text[start:]))
    first = True
    for role, text in pieces:
        if not text:
            continue
        if not first and messages[-1]["role"] == role:
            messages[-1]["content"] += text
        else:
            messages.append({"role": role, "content": text})
        first = False
    return messages


def join_thought(thought: str, text: str, *, opened: bool) -> ReplyText:
    """Join the thought and the content of a reply.

    Args:
        thought: What the server sent as thought, or "".
        text: The content.
        opened: Whether the request ended in an opened `<think>`.
    """
    first = _first_tag(text)
    repeats = first == THINK_CLOSE and text.lstrip().startswith(thought.strip())
    if not thought.strip() or first == THINK or repeats:
        return _restore_opening(text, opened=opened)
    if not text.strip() and _begins_with_tag(thought):
        # The server's parser saw no end of the thought and took everything for one.
        return _restore_opening(thought, opened=opened)
    head = "" if opened or thought.lstrip().startswith(THINK) else THINK
    if not text.strip():
        return ReplyText(head + thought)
    if first == THINK_CLOSE:  # the server's parser stopped in the middle of the thought
        return ReplyText(head + thought + text)
    close = "" if thought.rstrip().endswith(THINK_CLOSE) else THINK_CLOSE
    whole = head + thought + close
    return ReplyText(whole + text, thought_chars=len(whole))


def is_ambiguous(thought: str, text: str) -> bool:
    """Whether the rest of a streamed reply may still change how its start is joined."""
    return _HALF_TAG.fullmatch(text or thought) is not None


def strip_echo(text: str, sent: str) -> str:
    """Remove the continued turn from a continuation; llama.cpp and Mistral repeat it."""
    for echo in (sent, sent.strip()):
        if echo and text.startswith(echo):
            return text[len(echo) :]
    return text


def find_stop(
    text: str, stops: Sequence[str], finish: str, stop_string: str | None, start: int = 0
) -> tuple[str, Stop]:
    """Cut a reply after its first stop string, and restore one that the server left out.

    If the server does not report which stop string ended a reply, the tag that is still open at
    its end is assumed to be the one that was closed.

    Args:
        text: What the server sent.
        stops: The request's stop strings, such as `</search>`.
        finish: The `finish_reason`.
        stop_string: See `Completion`.
        start: Position from which stop strings are searched.

    Returns:
        The text, ending in the stop string if there is one, and why it ended.
    """
    if (cut := cut_at_stop(text, stops, start)) is not None:
        return cut, "tag"
    if finish == LENGTH:
        return text, "length"
    if stop_string in stops:
        return f"{text}{stop_string}", "tag"
    if stop_string != "" and not _NO_STOP.search(finish):
        tags = list(TAG.finditer(text))
        close = "" if not tags or tags[-1][1] else f"</{tags[-1][2].lower()}>"
        if close in stops:
            return text + close, "tag"
    return text, "eos"


def cut_at_stop(text: str, stops: Sequence[str], start: int = 0) -> str | None:
    """Return the text up to the end of its first stop string from `start`; None without one."""
    found = [(text.find(stop, start), stop) for stop in stops]
    ends = [position + len(stop) for position, stop in found if position >= 0]
    return text[: min(ends)] if ends else None


def read_generation(
    written: ReplyText, reply: Mapping[str, Any], stops: Sequence[str], most: int
) -> Generation:
    """Turn a reply into a generation.

    Args:
        written: Its text.
        reply: Its `finish`, `stop_string`, `tokens` (by the server's count, or None) and
            `seconds`.
        stops: The request's stop strings.
        most: The request's token limit.
    """
    text, stop = find_stop(
        written.text, stops, reply["finish"], reply["stop_string"], written.thought_chars
    )
    # A server without stop strings has also generated and counted what is cut off here.
    cut, counted = len(text) < len(written.text), reply["tokens"]
    tokens = count_tokens(text) if cut or counted is None else min(counted, most)
    return Generation(
        (),
        text,
        stop,
        usage=max(tokens, 2 if written.template_chars else 1),
        seconds=reply["seconds"],
        template_chars=written.template_chars,
    )


def _restore_opening(text: str, *, opened: bool) -> ReplyText:
    """Restore the `<think>` of a chat template, or drop one that repeats the request's."""
    if opened:
        bare = text.lstrip()
        return ReplyText(bare.removeprefix(THINK) if bare.startswith(THINK) else text)
    if _first_tag(text) == THINK_CLOSE:
        return ReplyText(THINK + text, template_chars=len(THINK))
    return ReplyText(text)


def _first_tag(text: str) -> str:
    """Return the first protocol tag in a text in its exact form, or ""."""
    tag = TAG.search(text)
    return f"<{tag[1]}{tag[2].lower()}>" if tag else ""


def _begins_with_tag(text: str) -> bool:
    return TAG.match(text.lstrip()) is not None
