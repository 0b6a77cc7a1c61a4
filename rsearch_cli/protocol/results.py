"""Results: what the system inserts after a search, made harmless and short.

Place in the path: between the executor and the policy's context; nothing from outside gets into a
transcript but through `neutralise`. On failure: none; a failed search and an invalid plan become
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
"""Longest reason that is told for a failed search or an invalid plan, in characters."""

# Also the forms that a tokenizer with NFKC would turn into `<` and `>`.
_ANGLES = str.maketrans("<>\uff1c\uff1e\ufe64\ufe65", "‹›‹›‹›")

_TAG_LINE = re.compile(r"\s*</?(?:result|r)>\s*")


def neutralise(text: str, forbidden: Collection[str] = ()) -> str:
    """Make text from outside harmless: one line that holds no tag and no special token.

    `<` and `>` become `‹` and `›`, so no tag can be opened or closed. Then every string of
    `forbidden` that still occurs is broken by a blank, again and again until none is left. This
    ends: each break takes away a pair of neighbouring visible characters or a visible character,
    and nothing ever adds one.

    Args:
        text: Anything.
        forbidden: Strings that the tokenizer would read as special tokens, case-sensitive. Strings
            of blanks alone are left out of account: they open nothing, and runs are collapsed.

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
    """Part the token's first two characters, or blank its first visible one if that is no use."""
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
    """Write the block that the system inserts after a search.

    Args:
        results: One a node, in plan order.
        rules: Names the tag.
        passage_chars: Longest passage, in characters, without its title.
        forbidden: See `neutralise`.

    Returns:
        The block with its tags; it begins and ends with a line break. One line a passage.
    """
    lines = [line for result in results for line in _result_lines(result, passage_chars)]
    return _block((neutralise(line, forbidden) for line in lines), rules)


def render_invalid_plan(
    problems: Sequence[str], rules: ProtocolConfig, forbidden: Collection[str] = ()
) -> str:
    """Write the block for a plan that could not be read; it names the first problem.

    Args:
        problems: As `read_plan` gave them, at least one.
        rules: Names the tag.
        forbidden: See `neutralise`; a problem quotes what the model wrote.
    """
    line = f"plan not valid: {shorten(flatten(problems[0]), REASON_CHARS)}"
    return _block([neutralise(line, forbidden)], rules)


def renew_block(text: str, rules: ProtocolConfig, forbidden: Collection[str] = ()) -> str:
    """Write a stored block again, as these rules and this tokenizer want it.

    Args:
        text: A block that was inserted once, maybe for another model.
        rules: Names the tag.
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
    """Title and text; the title is left out where the text begins with it anyway."""
    title, text = flatten(passage.title), shorten(flatten(passage.text), most)
    if text.casefold().startswith(title.casefold()):
        return text
    return f"{title}: {text}" if text else title
