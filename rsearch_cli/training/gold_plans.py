"""Search plans for questions whose supporting titles are known, in the words of the question.

A title that the question does not name is never written into a plan, because an agent could not
know it: its node asks with the remaining words of the question and waits for the node that leads
there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rsearch_cli.protocol.characters import count_words
from rsearch_cli.recipe.schema import ProtocolConfig
from rsearch_cli.search.analyzer import STOP_WORDS, fold, split_words
from rsearch_cli.search.title_index import title_words
from rsearch_cli.training.planned_traces import NoPlan
from rsearch_cli.types import PlanNode, Question, SearchPlan

NO_TITLES = "of questions without supporting titles"
NOT_NAMED = "of questions that name none of their supporting titles"
NOTHING_TO_ASK = "of questions with no words beside the titles"

_LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKS = '?!.,;:"\u201c\u201d\u00ab\u00bb'
_EDGE = _MARKS + "'\u2018\u2019()[]{}"
_POSSESSIVE = re.compile(r"(?:['\u2019]s|(?<=s)['\u2019])$")
# Words of comparisons: they say what to do with the results, and not what to look for.
_COMPARING = frozenset(
    "first last earlier later sooner older younger oldest youngest longer shorter larger smaller "
    "bigger taller higher lower newer earliest latest".split()
)


class _Name(NamedTuple):
    """A supporting title in the question: its words `[start, end)`, and how they are written."""

    start: int
    end: int
    text: str
    owns: bool


def write_plan(question: Question, rules: ProtocolConfig) -> SearchPlan:
    """Return a plan that should find all supporting titles of a question.

    A node for each title that the question names, with words of the question; a node for each
    other title, which waits for them. Where there are as many of one kind as of the other, they
    are paired in the order of `supporting_titles`; a single named title begins a chain.

    Args:
        question: Its text and supporting titles are read.
        rules: The first of its sources is searched; queries are cut at `max_query_words`.

    Raises:
        NoPlan: The question names no supporting title, has none, or says nothing about them.
    """
    if not question.supporting_titles:
        raise NoPlan(NO_TITLES)
    words = question.text.split()
    found = {title: _find(title, words) for title in question.supporting_titles}
    names = [name for name in found.values() if name is not None]
    if not names:
        raise NoPlan(NOT_NAMED)
    asked = _order_words(words, names)
    hidden = len(found) - len(names)
    is_chain = len(names) == 1
    depth = hidden if is_chain else min(hidden, 1)
    own, *later = _share(asked, depth, from_start=is_chain)
    source = next(iter(rules.sources))
    queries = [" ".join(_fit(name.text.split(), own, rules)) for name in names]
    edges: list[tuple[int, int]] = []
    for number in range(hidden):
        child = len(queries)
        queries.append(" ".join(_fit((), later[min(number, depth - 1)], rules)))
        if is_chain:
            edges.append((child - 1, child))
        elif hidden == len(names):
            edges.append((number, child))
        else:
            edges += [(parent, child) for parent in range(len(names))]
    if len(queries) > len(_LABELS):
        raise NoPlan(f"of questions with more than {len(_LABELS)} supporting titles")
    return SearchPlan(
        tuple(PlanNode(_LABELS[i], query, source) for i, query in enumerate(queries)),
        tuple((_LABELS[parent], _LABELS[child]) for parent, child in edges),
    )


def _find(title: str, words: Sequence[str]) -> _Name | None:
    """Find a title in a question, with its qualifier or without; case and accents do not count."""
    split = [split_words(word) for word in words]
    places = [i for i, parts in enumerate(split) for _ in parts]
    flat = [part for parts in split for part in parts]
    for form in (split_words(title), title_words(title)):
        for at in range(len(flat) - len(form) + 1 if form else 0):
            if flat[at : at + len(form)] == form:
                start, end = places[at], places[at + len(form) - 1] + 1
                text = " ".join(words[start:end]).strip(_MARKS)
                bare = _POSSESSIVE.sub("", text)
                return _Name(start, end, bare, bare != text)
    return None


def _order_words(words: Sequence[str], names: Sequence[_Name]) -> list[str]:
    """Return the words that say what is asked about the named titles.

    For one title they are ordered by their distance from it, those before it first ("the director
    of X"), or those after it if it is a possessive ("X's father"). For several, they are in the
    order of the question.

    Raises:
        NoPlan: There are none.
    """
    inside = {i for name in names for i in range(name.start, name.end)}
    asked = {}
    for i, word in enumerate(words):
        bare = _POSSESSIVE.sub("", word.strip(_EDGE))
        if i not in inside and not STOP_WORDS.issuperset(split_words(bare)):
            asked[i] = bare
    subjects = {i: word for i, word in asked.items() if fold(word) not in _COMPARING}
    asked = subjects or asked
    if not asked:
        raise NoPlan(NOTHING_TO_ASK)
    if len(names) > 1:
        return list(asked.values())
    name = names[0]
    before = [i for i in reversed(asked) if i < name.start]
    after = [i for i in asked if i >= name.end]
    return [asked[i] for i in ((*after, *before) if name.owns else (*before, *after))]


def _share(words: list[str], depth: int, *, from_start: bool) -> list[list[str]]:
    """Divide words among a node and the `depth` nodes behind it; none is left without a word.

    Args:
        words: In the order of use.
        depth: Nodes behind the first.
        from_start: Every node but the last takes one word; otherwise, every node but the first.
    """
    if not depth:
        return [words]
    if from_start:
        shares = [words[i : i + 1] for i in range(depth)] + [words[depth:]]
    else:
        cut = max(1, len(words) - depth)
        shares = [words[:cut], *([word] for word in words[cut:])]
        shares += [[] for _ in range(depth + 1 - len(shares))]
    return [share or words[-1:] for share in shares]


def _fit(title: Sequence[str], words: Sequence[str], rules: ProtocolConfig) -> list[str]:
    """Return the title and as many of the words as a query may have."""
    fitted = list(title)
    for word in words:
        if count_words(" ".join([*fitted, word])) > rules.max_query_words:
            break
        fitted.append(word)
    return fitted
