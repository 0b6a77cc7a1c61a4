"""Query expansion: what a node takes over from the nodes it waited for.

Place in the path: in the executor, between a parent's passages and its child's search. A second hop
is found by the names that the first hop brought to light; whole passages drown the child's own
words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from rsearch_cli.search.analyzer import STOP_WORDS, split_query
from rsearch_cli.types import NodeResult

_INSIDE = "of the de la le du des del della di da dos das van von der den ter zu al el bin ibn"
_TITLES = "Dr Mr Mrs Ms St Mt Jr Sr Prof Gen Col Capt Lt Sgt Rev"
_DATES = (
    "january february march april may june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday"
)
_NUMBERS = "one two three four five six seven eight nine ten"

# Lower-case words that may stand inside a name: University of the Arts, Vasco da Gama.
_PARTICLES = frozenset(_INSIDE.split())
# Words whose full stop ends no sentence.
_BEFORE_STOP = frozenset(_TITLES.split())
# Capitalised words that are no names when they stand alone.
_NO_NAMES = STOP_WORDS.union(_DATES.split(), _NUMBERS.split())
_WORD = re.compile(r"[^\W_]+(?:['\u2019.&-][^\W_]+)*")
_POSSESSIVES = ("'s", "\u2019s")
# What comes between two words of which the second opens a sentence, a clause or a quotation.
_OPENERS = frozenset('.!?:;\n"\u201c(')
# So ends a word that opens a sentence and is a verb or an adverb far more often than a name.
_OPENER_ENDINGS = ("ed", "ing", "ly")


# Passages whose names are remembered: the completions of a question find the same ones again.
_REMEMBERED = 4096


class _Word(NamedTuple):
    """A word of a text, and what stands in front of it."""

    text: str
    gap: str
    opens: bool

    @property
    def is_capitalised(self) -> bool:
        return self.text[0].isupper()


def expand(
    query: str,
    parents: Sequence[NodeResult],
    mode: Literal["entities", "titles", "none"],
    from_top: int,
) -> tuple[str, ...]:
    """Collect what a node's parents found that its query can use.

    Args:
        query: The node's own query.
        parents: Results of the nodes it waited for.
        mode: `entities` takes the names in the passages, `titles` their titles, `none` nothing.
            Names show by their capitals; for a passage without any, `entities` takes the title.
        from_top: Best passages of each parent that are read.

    Returns:
        Names in order of appearance, each once whatever its case. What the node's query says, or
        that parent was asked with, is left out: an expansion is what the passages add. So the third
        hop of a chain is about what the second one found, not about what the first one did.
    """
    if mode == "none":
        return ()
    added: dict[tuple[str, ...], str] = {}
    for parent in parents:
        asked = " ".join([query, parent.node.query, *parent.expansion])
        known = set(split_query(asked))
        for passage in parent.passages[:from_top]:
            for words, name in _candidates(passage.title, passage.text, mode):
                if not known.issuperset(words):
                    added.setdefault(words, name)
    return tuple(added.values())


@lru_cache(maxsize=_REMEMBERED)
def _candidates(
    title: str, text: str, mode: Literal["entities", "titles"]
) -> tuple[tuple[tuple[str, ...], str], ...]:
    """What a passage can add to a query: the words of each name, and the name."""
    names = [title] if mode == "titles" else _names_or_title(title, text)
    return tuple((tuple(split_query(name)), " ".join(name.split())) for name in names)


def _names_or_title(title: str, text: str) -> list[str]:
    """The names in a passage, or before them its title where capitals cannot tell names apart."""
    names = find_names(title, text)
    has_capitals = any(map(str.isupper, title + text))
    if has_capitals and not any(map(_has_no_case, title)):
        return names
    return [title, *names]


def _has_no_case(character: str) -> bool:
    """Whether it is a letter of a script without capitals: Hebrew, Arabic, Hindi, Chinese, ..."""
    return character >= "\u0590" and unicodedata.category(character) == "Lo"


def find_names(title: str, text: str) -> list[str]:
    """Proper names in the title and the text of a passage, in order, repeats included.

    A name is a run of capitalised words, with particles inside it. A lone word at the start of a
    sentence is doubtful: it counts unless it is a stop-word, or looks like a verb or an adverb and
    stands nowhere else as a name.
    """
    runs = [*_find_runs(title, in_title=True), *_find_runs(text)]
    sure = {word.text for run in runs for word in run if not word.opens}
    return [" ".join(w.text for w in run) for run in runs if _is_name(run, sure)]


def _is_name(run: list[_Word], sure: set[str]) -> bool:
    if len(run) > 1:
        return True
    word, lower = run[0].text, run[0].text.casefold()
    if len(word) == 1 or lower in _NO_NAMES:
        return False
    return not run[0].opens or word in sure or not lower.endswith(_OPENER_ENDINGS)


def _find_runs(text: str, *, in_title: bool = False) -> Iterator[list[_Word]]:
    """Cut a text into runs of capitalised words, particles between them kept."""
    run: list[_Word] = []
    particles: list[_Word] = []
    for word in _read_words(text, in_title=in_title):
        if run and word.gap.strip(" \u00a0"):
            yield run
            run, particles = [], []
        if word.is_capitalised:
            # «The Beatles» is a whole title; in a sentence, «In» or «The» only comes before a name.
            if run or not (word.opens and word.text.casefold() in STOP_WORDS):
                run += [*particles, word]
            particles = []
        elif run and word.text in _PARTICLES:
            particles.append(word)
        elif run:
            yield run
            run, particles = [], []
    if run:
        yield run


def _read_words(text: str, *, in_title: bool) -> Iterator[_Word]:
    """Read a text word by word, initials joined to what follows, possessive endings cut."""
    end, before, possessive = 0, "", False
    for match in _WORD.finditer(text):
        word, gap = match[0], text[end : match.start()]
        if gap == ". " and _is_shortened(before) and word.casefold() not in STOP_WORDS:
            gap = " "
        opens = not in_title and (not before or not _OPENERS.isdisjoint(gap))
        owns = word.endswith(_POSSESSIVES)
        # What follows a possessive is a thing of its own: «Orvath's Lantern Works».
        yield _Word(word[:-2] if owns else word, "'s" if possessive else gap, opens)
        end, before, possessive = match.end(), word, owns


def _is_shortened(word: str) -> bool:
    return (len(word) == 1 and word.isupper()) or "." in word or word in _BEFORE_STOP
