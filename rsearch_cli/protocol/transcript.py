"""Find the tags and blocks of a completion, and check its format.

A *block* is an opening tag and its closing tag with no protocol tag in between. Tags are recognised
in any case and with spaces inside, so that the intention is read; whether they are exact is one of
the checks, because generation stops at exact tags only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.types import Segment

THINK = "<think>"
"""Tag that a rollout or a chat template may open the model's turn with."""
SEARCH_CLOSE = "</search>"
"""Generation stops here for a search."""
ANSWER_CLOSE = "</answer>"
"""Generation ends here."""

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "think": "at least one <think> block with text in it",
        "search": "at least one <search> block",
        "answer": "one <answer> block, with text in it, and nothing after it",
        "order": "think, search, result, any further rounds of them, answer",
        "closed": "every tag is opened and closed once, none inside another",
        "exact_tags": "tags are lower-case and have no blanks in them",
        "results_by_system": "the model wrote no result tag",
        "no_stray_text": "the model wrote nothing outside its blocks",
    }
)
"""The rules of the format, by name of the check.

The last four require that something is absent. They only count once there is an answer block, so
that writing nothing scores nothing.
"""

# Bounded white space keeps matching linear.
TAG = re.compile(r"<\s{0,2}(/?)\s{0,2}(think|search|result|r|answer)\s{0,2}>", re.IGNORECASE)
"""A protocol tag: group 1 is the slash of a closing tag, group 2 the name."""
_KINDS = {"think": "T", "search": "S", "result": "r", "r": "r", "answer": "A"}
_EXACT_TAGS = frozenset(f"<{slash}{name}>" for name in _KINDS for slash in ("", "/"))
_ROUNDS = re.compile(r"TSR(T?SR)*T?A")


@dataclass(frozen=True, slots=True)
class TranscriptReading:
    """The contents of a transcript, and how well it keeps the format.

    Attributes:
        thoughts: Texts of the non-empty `<think>` blocks, stripped.
        plan_texts: Texts of the `<search>` blocks, as written.
        answer: Text of the last non-empty `<answer>` block, stripped, or None.
        checks: Whether each rule of `CHECKS` is kept.
    """

    thoughts: tuple[str, ...]
    plan_texts: tuple[str, ...]
    answer: str | None
    checks: Mapping[str, bool]

    @property
    def format_valid(self) -> bool:
        """Whether every rule is kept."""
        return all(self.checks.values())

    @property
    def format_score(self) -> float:
        """Share of the rules that are kept, in [0, 1]."""
        return sum(self.checks.values()) / len(self.checks)


class _Piece(NamedTuple):
    """A part of a transcript; kinds are letters, so that rules are patterns over a string.

    T, S, A, r: a think, search, answer or result block of the model; R: a result block of the
    system; x: text outside of blocks; !: a tag without a block, r! if it is a result tag.
    """

    kind: str
    text: str = ""
    exact: bool = True


def read_transcript(
    opening: str, segments: Sequence[Segment], rules: ProtocolConfig
) -> TranscriptReading:
    """Read a finished completion.

    Args:
        opening: Start of the model's turn in the prompt; counts as written by the model.
        segments: The completion in order.
        rules: Its `result_tag` is recognised, as is the older `<r>`.

    Returns:
        Thoughts, plans and answer of the model's blocks, and the checks.
    """
    pieces: list[_Piece] = []
    parts = [("model", opening), *((s.author, s.text) for s in segments)]
    for author, run in groupby(parts, key=lambda part: part[0]):
        text = "".join(part[1] for part in run)
        if author == "model":
            pieces += _pieces(text)
        elif any(f"<{tag}>" in text for tag in (rules.result_tag, "r")):
            pieces.append(_Piece("R"))
    return TranscriptReading(
        thoughts=tuple(p.text.strip() for p in pieces if p.kind == "T" and p.text.strip()),
        plan_texts=tuple(p.text for p in pieces if p.kind == "S"),
        answer=_last_answer(pieces),
        checks=MappingProxyType(_check(pieces)),
    )


def last_plan_text(model_text: str) -> str | None:
    """Return the text of the last `<search>` block, or None."""
    return next((p.text for p in reversed(_pieces(model_text)) if p.kind == "S"), None)


def answer_text(model_text: str) -> str | None:
    """Return the text of the last non-empty `<answer>` block, stripped, or None."""
    return _last_answer(_pieces(model_text))


def _last_answer(pieces: Sequence[_Piece]) -> str | None:
    answers = (p.text.strip() for p in reversed(pieces) if p.kind == "A")
    return next((answer for answer in answers if answer), None)


def _check(pieces: Sequence[_Piece]) -> dict[str, bool]:
    shape = "".join(piece.kind for piece in pieces)
    blocks = re.sub("[x!]", "", shape)
    answered = "A" in shape
    return {
        "think": any(p.kind == "T" and p.text.strip() for p in pieces),
        "search": "S" in shape,
        "answer": shape.count("A") == 1 and shape[-1] == "A" and bool(pieces[-1].text.strip()),
        "order": _ROUNDS.fullmatch(blocks) is not None,
        "closed": answered and "!" not in shape,
        "exact_tags": answered and all(p.exact for p in pieces),
        "results_by_system": answered and "r" not in shape,
        "no_stray_text": answered and "x" not in shape,
    }


def _pieces(text: str) -> list[_Piece]:
    """Split text of the model into blocks, loose tags and text outside of them."""
    pieces: list[_Piece] = []
    opened: re.Match[str] | None = None
    position = 0
    for tag in TAG.finditer(text):
        closing = bool(tag[1])
        if opened and closing and tag[2].lower() == opened[2].lower():
            exact = _is_exact(opened) and _is_exact(tag)
            pieces.append(_Piece(_kind(tag), text[opened.end() : tag.start()], exact))
            opened = None
        else:
            pieces += _loose(opened) if opened else _stray(text[position : tag.start()])
            pieces += _loose(tag) if closing else []
            opened = None if closing else tag
        position = tag.end()
    return pieces + (_loose(opened) if opened else _stray(text[position:]))


def _kind(tag: re.Match[str]) -> str:
    return _KINDS[tag[2].lower()]


def _is_exact(tag: re.Match[str]) -> bool:
    return tag[0] in _EXACT_TAGS


def _loose(tag: re.Match[str]) -> list[_Piece]:
    return [_Piece("r!" if _kind(tag) == "r" else "!", exact=_is_exact(tag))]


def _stray(text: str) -> list[_Piece]:
    return [_Piece("x")] if text.strip() else []
