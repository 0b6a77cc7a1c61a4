"""Remove duplicate questions, and questions that leak between training and held-out splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rsearch_cli.questions.records import Record

_QUOTES = re.compile("[\"'`\u00b4\u2018-\u201f\u00ab\u00bb]")
_ENDINGS = " ?!.\u2026\u3002\u061f\u0964"


@dataclass(frozen=True, slots=True)
class Removal:
    """A removed question.

    Attributes:
        id: Its id.
        same_as: The question kept instead: its id, preceded for a leak by its split or file.
        answers_differ: Whether the two have no answer in common; False if unknown.
    """

    id: str
    same_as: str
    answers_differ: bool = False


def normalise_question(text: str) -> str:
    """Return a form in which different spellings of one question are equal.

    Ignores case, character width, quotation marks, white space and final punctuation, but nothing
    else: "What is C?" differs from "What is C++?".
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_QUOTES.sub("", folded).split()).rstrip(_ENDINGS) or text.strip()


def drop_duplicates(records: Sequence[Record]) -> tuple[list[Record], list[Removal]]:
    """Keep the first record of each question."""
    first: dict[str, Record] = {}
    removals = []
    for record in records:
        known = first.setdefault(normalise_question(record.question.text), record)
        if known is not record:
            answers = ({a.casefold() for a in r.question.answers} for r in (known, record))
            differ = set.isdisjoint(*answers)
            removals.append(Removal(record.question.id, known.question.id, differ))
    return list(first.values()), removals


def drop_leaks(
    records: Sequence[Record], elsewhere: Mapping[str, str]
) -> tuple[list[Record], list[Removal]]:
    """Remove records whose question also occurs elsewhere.

    Args:
        records: Records to filter.
        elsewhere: Location by normalised question; see `locate_questions`.
    """
    kept, removals = [], []
    for record in records:
        where = elsewhere.get(normalise_question(record.question.text))
        if where is None:
            kept.append(record)
        else:
            removals.append(Removal(record.question.id, where))
    return kept, removals


def locate_questions(named: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Index questions by their normalised text.

    Args:
        named: `(name, text)` of each question.
        where: Split or file that they are from.

    Returns:
        `where` and the name of the first such question, by normalised text.
    """
    places: dict[str, str] = {}
    for name, text in named:
        places.setdefault(normalise_question(text), f"{where} {name}")
    return places
