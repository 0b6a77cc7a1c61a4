"""Render search results into the block that the system inserts, neutralised and shortened.

All outside text enters a transcript through `neutralise`. Failed searches and invalid plans become
lines that the model can read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from rsearch_cli.protocol.characters import flatten, shorten
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import NodeResult, Passage

REASON_CHARS = 120
"""Longest reason given for a failed search or an invalid plan, in characters."""

# Includes the forms that NFKC normalisation in a tokenizer would turn into `<` and `>`.
_ANGLES = str.maketrans("<>\uff1c\uff1e\ufe64\ufe65", "‹›‹›‹›")

_TAG_LINE = re.compile(r"\s*</?(?:result|r)>\s*")


def neutralise(text: str, forbidden: Collection[str] = ()) -> str:
    """Make outside text harmless: one line without any tag or special token.

    `<` and `>` become `‹` and `›`, so that no tag can be opened or closed. Then every remaining
    string of `forbidden` is broken by a space until none is left. This terminates: every break
    removes an adjacent pair of visible characters, or a visible character, and none is ever added.

    Args:
        text: Any text.
        forbidden: Strings that the tokenizer would read as special tokens, case-sensitive. Strings
            of white space only are ignored, since white space is collapsed anyway.

    Returns:
        The text on one line, in NFC, without control characters.
    """
    text = flatten(text).translate(_ANGLES)
    tokens = _any_of(frozenset(forbidden))
    while tokens and tokens.search(text):
        text = " ".join(tokens.sub(_broken, text).split())
    return text


@lru_cache(maxsize=8)
def _any_of(forbidden: frozenset[str]) -> re.Pattern[str] | None:
    possible = [t for t in forbidden if t.strip() and t == t.translate(_ANGLES)]
    longest_first = sorted(possible, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first))) if possible else None


def _broken(match: re.Match[str]) -> str:
    """Separate the first two characters of a token, or else blank its first visible one."""
    token = match[0]
    if len(token) > 1 and " " not in token[:2]:
        return f"{token[0]} {token[1:]}"
    return token.replace(token.strip()[0], " ", 1)


def render_results(
    results: Sequence[NodeResult],
    rules: ProtocolConfig,
    passage_chars: int,
    forbidden: Collection[str] = (),
) -> str:
    """Render the block that the system inserts after a search.

    Args:
        results: One per node, in plan order.
        rules: Its `result_tag` is used.
        passage_chars: Longest passage, in characters, without its title.
        forbidden: See `neutralise`.

    Returns:
        The block with its tags and one line per passage; it starts and ends with a line break.
    """
    lines = [line for result in results for line in _result_lines(result, passage_chars)]
    return _block((neutralise(line, forbidden) for line in lines), rules)


def render_invalid_plan(
    problems: Sequence[str], rules: ProtocolConfig, forbidden: Collection[str] = ()
) -> str:
    """Render the block for a plan that is not valid; it states the first problem.

    Args:
        problems: From `read_plan`, at least one.
        rules: Its `result_tag` is used.
        forbidden: See `neutralise`; problems quote what the model wrote.
    """
    line = f"plan not valid: {shorten(flatten(problems[0]), REASON_CHARS)}"
    return _block([neutralise(line, forbidden)], rules)


def renew_block(text: str, rules: ProtocolConfig, forbidden: Collection[str] = ()) -> str:
    """Render a stored block again, for the given rules and tokenizer.

    Args:
        text: A block that was inserted before, possibly for another model.
        rules: Its `result_tag` is used.
        forbidden: See `neutralise`.
    """
    lines = (line for line in text.splitlines() if line.strip() and not _TAG_LINE.fullmatch(line))
    return _block((neutralise(line, forbidden) for line in lines), rules)


def _block(lines: Iterable[str], rules: ProtocolConfig) -> str:
    return "\n".join(["", f"<{rules.result_tag}>", *lines, f"</{rules.result_tag}>", ""])


def _result_lines(result: NodeResult, passage_chars: int) -> list[str]:
    label = result.node.label
    if result.error is not None:
        return [f"{label}: search failed ({shorten(flatten(result.error), REASON_CHARS)})"]
    bodies = [_passage_line(passage, passage_chars) for passage in result.passages]
    return [f"{label}: {body}" for body in bodies if body] or [f"{label}: nothing found"]


def _passage_line(passage: Passage, most: int) -> str:
    """Join title and text, without the title if the text starts with it."""
    title, text = flatten(passage.title), shorten(flatten(passage.text), most)
    if text.casefold().startswith(title.casefold()):
        return text
    return f"{title}: {text}" if text else title
