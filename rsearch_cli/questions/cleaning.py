"""Cleaning: questions that stand twice in a set, or on both sides of a split.

Place in the path: between a question set and the file that `rsearch data` makes of it. On failure:
none; what is taken out is told.
"""

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
    """A question that was taken out.

    Attributes:
        id: Its id.
        same_as: Where the same question stands: an id, for a leak with its split or file.
        answers_differ: Whether the two have no answer in common; False where that is not known.
    """

    id: str
    same_as: str
    answers_differ: bool = False


def normalise_question(text: str) -> str:
    """Give two ways of typing one question the same form.

    Case, width of letters, quotation marks, white space and the punctuation at the end do not
    count; all other characters do: «What is C?» is not «What is C++?».
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
    """Take out the records whose question stands elsewhere.

    Args:
        records: What is to be written.
        elsewhere: Normalised question to where it stands; see `locate_questions`.
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
    """Index `(name, text)` of questions by their normalised text.

    Returns:
        Normalised text to `where` and the name of the first question that has it.
    """
    places: dict[str, str] = {}
    for name, text in named:
        places.setdefault(normalise_question(text), f"{where} {name}")
    return places
