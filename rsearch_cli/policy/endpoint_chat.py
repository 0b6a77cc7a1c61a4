"""A chat server's reply, read as the text that the model wrote.

Servers send the thought apart, leave out a tag that their chat template had opened, or a stop
string, or write past it. What can be told is put back; nothing else is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rsearch_cli.policy.generation import Generation
from rsearch_cli.policy.texts import TextToken, count_tokens, fill
from rsearch_cli.protocol.transcript import TAG, THINK
from rsearch_cli.services.completion import LENGTH

THINK_CLOSE = "</think>"

Stop = Literal["tag", "eos", "length"]

# A reply that ended so was not ended by a stop string, whatever is open in it.
_NO_STOP = re.compile(r"filter|safety|refus|recitation|prohibited|blocklist|spii|tool|function")
_HALF_TAG = re.compile(r"\s*<[^<>]{0,10}")


class Written(NamedTuple):
    """What a model wrote, put together.

    Attributes:
        text: The whole of it.
        implied: Characters at its start that the server's template had written.
        thought: Characters at its start that the server took for thought; no stop string counts
            there, since the server saw none.
    """

    text: str
    implied: int = 0
    thought: int = 0


def assemble(thought: str, text: str, *, opened: bool) -> Written:
    """Put thought and text together.

    Args:
        thought: What the server sent as thought, or "".
        text: The rest.
        opened: Whether a `<think>` was opened for the model and sent.
    """
    first = _first_tag(text)
    repeats = first == THINK_CLOSE and text.lstrip().startswith(thought.strip())
    if not thought.strip() or first == THINK or repeats:
        return _restore_opening(text, opened=opened)
    if not text.strip() and _begins_with_tag(thought):
        # A parser that saw no end of a thought took everything for one.
        return _restore_opening(thought, opened=opened)
    head = "" if opened or thought.lstrip().startswith(THINK) else THINK
    if not text.strip():
        return Written(head + thought)
    if first == THINK_CLOSE:  # a parser that lost its way in the middle of the thought
        return Written(head + thought + text)
    close = "" if thought.rstrip().endswith(THINK_CLOSE) else THINK_CLOSE
    whole = head + thought + close
    return Written(whole + text, thought=len(whole))


def is_undecided(thought: str, text: str) -> bool:
    """Whether a reply that is still coming may yet be put together in another way."""
    return _HALF_TAG.fullmatch(text or thought) is not None


def drop_echo(text: str, sent: str) -> str:
    """A continuation without the turn that it continues; llama.cpp and Mistral repeat it."""
    for echo in (sent, sent.strip()):
        if echo and text.startswith(echo):
            return text[len(echo) :]
    return text


def find_stop(
    text: str, stops: Sequence[str], finish: str, stop_string: str | None, start: int = 0
) -> tuple[str, Stop]:
    """Cut a reply behind its first stop string, which most servers leave out of the text.

    Where a server does not say what ended a reply, the tag that is open at its end is taken to be
    the one that was closed.

    Args:
        text: What the server sent.
        stops: What it was told to stop at, such as `</search>`.
        finish: Its `finish_reason`.
        stop_string: See `Completion`.
        start: Where stop strings are looked for.

    Returns:
        The text with the stop string at its end, if there is one, and why it ended.
    """
    if (cut := cut_behind(text, stops, start)) is not None:
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


def cut_behind(text: str, stops: Sequence[str], start: int = 0) -> str | None:
    """The text up to the end of its first stop string from `start`; None if it has none."""
    found = [(text.find(stop, start), stop) for stop in stops]
    ends = [position + len(stop) for position, stop in found if position >= 0]
    return text[: min(ends)] if ends else None


def read_reply(
    written: Written, reply: Mapping[str, Any], stops: Sequence[str], most: int
) -> Generation:
    """Make a generation of what a model wrote.

    Args:
        written: Thought and text, put together.
        reply: Its `finish`, `stop_string`, `tokens` (as the server counts them, or None) and
            `seconds`.
        stops: What the server was told to stop at.
        most: Limit of tokens.
    """
    text, stop = find_stop(
        written.text, stops, reply["finish"], reply["stop_string"], written.thought
    )
    # A server that does not know stop strings has written, and counted, what is cut off here.
    cut, counted = len(text) < len(written.text), reply["tokens"]
    tokens = count_tokens(text) if cut or counted is None else min(counted, most)
    own = TextToken(text[written.implied :], "model", seconds=reply["seconds"])
    implied = [TextToken(text[: written.implied], "model", implied=True)] if written.implied else []
    return Generation((*implied, own, *fill(tokens - len(implied))), text, stop)


def _restore_opening(text: str, *, opened: bool) -> Written:
    """Add the `<think>` that a template opened, or drop one that repeats what was sent."""
    if opened:
        bare = text.lstrip()
        return Written(bare.removeprefix(THINK) if bare.startswith(THINK) else text)
    if _first_tag(text) == THINK_CLOSE:
        return Written(THINK + text, implied=len(THINK))
    return Written(text)


def _first_tag(text: str) -> str:
    """The first tag of the protocol in a text, as it should be written, or ""."""
    tag = TAG.search(text)
    return f"<{tag[1]}{tag[2].lower()}>" if tag else ""


def _begins_with_tag(text: str) -> bool:
    return TAG.match(text.lstrip()) is not None
