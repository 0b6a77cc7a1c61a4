"""Query expansion: the names that a plan node takes over from the passages of its parents.

Names rather than whole passages, which would drown out the node's own words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from rsearch_cli.search.analyzer import STOP_WORDS, fold, split_query, split_words
from rsearch_cli.search.title_index import bare_title, title_words
from rsearch_cli.types import NodeResult, Passage

_INSIDE = "of the de la le du des del della di da dos das van von der den ter zu al el bin ibn"
_TITLES = "Dr Mr Mrs Ms St Mt Jr Sr Prof Gen Col Capt Lt Sgt Rev"
_DATES = (
    "january february march april may june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday"
)
_NUMBERS = "one two three four five six seven eight nine ten"

# Lower-case words that may be part of a name: University of the Arts, Vasco da Gama.
_PARTICLES = frozenset(_INSIDE.split())
# Abbreviations whose full stop does not end a sentence.
_BEFORE_STOP = frozenset(_TITLES.split())
# Capitalised words that are not names on their own.
_NO_NAMES = STOP_WORDS.union(_DATES.split(), _NUMBERS.split())
_WORD = re.compile(r"[^\W_]+(?:['\u2019.&-][^\W_]+)*")
_POSSESSIVES = ("'s", "\u2019s")
# Characters before a word that opens a sentence, a clause or a quotation.
_OPENERS = frozenset('.!?:;\n"\u201c(')
# Endings of sentence openers that are far more often verbs or adverbs than names.
_OPENER_ENDINGS = ("ed", "ing", "ly")


# Characters of a passage that are read, and memoised: whole documents have thousands of names.
_READ = 10_000
_STEM = 5  # least letters that forms of a word share: director and directed

# Passages whose names are memoised: all completions of a question find similar ones.
_MEMOISED = 4096


class _Word(NamedTuple):
    """A word of a text, with the characters before it."""

    text: str
    gap: str
    opens: bool

    @property
    def is_capitalised(self) -> bool:
        return self.text[0].isupper()


def expand(
    query: str,
    parents: Sequence[NodeResult],
    mode: Literal["linked", "entities", "titles", "none"],
    from_top: int,
) -> tuple[str, ...]:
    """Return the names in the parents' passages that expand a node's query.

    Args:
        query: The node's own query.
        parents: Results of its parents.
        mode: `entities` takes the names in the passages, `titles` their titles, `none` nothing.
            Names are recognised by capitals; for a passage without any, `entities` takes the title.
            `linked` takes names, first of all from passages whose title the parent asked for.
        from_top: Number of passages of each parent that are read, best first.

    Returns:
        Names in order of appearance, each once whatever its case. Names in the node's query, or in
        the query or expansion of that parent, are left out, because an expansion is what the
        passages add: the third hop of a chain is about what the second one found, not the first.
    """
    if mode == "none":
        return ()
    added: dict[tuple[str, ...], str] = {}
    for parent in parents:
        asked = " ".join([query, parent.node.query, *parent.expansion])
        known = set(split_query(asked))
        linked = mode == "linked"
        for passage in _link(parent, from_top) if linked else parent.passages[:from_top]:
            text = passage.text[:_READ]
            if linked:
                text = _turn_to_cue(passage.title, text, parent.node.query)
            for words, name in _candidates(passage.title, text, mode):
                if not known.issuperset(words):
                    added.setdefault(words, name)
    return tuple(added.values())


def read_mentions(parents: Sequence[NodeResult], from_top: int) -> tuple[str, ...]:
    """Return the texts in which a node's parents mention what the node may be about.

    They are those of the passages that `expand` reads in mode `linked`. A title that the parent
    asked for is taken out: what the passage adds is what it says about it.
    """
    texts: list[str] = []
    for parent in parents:
        for passage in _link(parent, from_top):
            text = _turn_to_cue(passage.title, passage.text[:_READ], parent.node.query)
            if _asks_for(parent, passage.title)[0]:
                text = _remove_title(passage.title, text)
            else:
                text = f"{passage.title}\n{text}"
            if text.strip():
                texts.append(text)
    return tuple(texts)


def _remove_title(title: str, text: str) -> str:
    """Return a text without its title, which may lack its qualifier."""
    return re.sub(rf"\b{re.escape(bare_title(title))}\b", "\n", text, flags=re.IGNORECASE)


@lru_cache(maxsize=_MEMOISED)
def _turn_to_cue(title: str, text: str, query: str) -> str:
    """Return the text of a passage from the first of the query's words on, then what is before it.

    Words match if they share a stem: "director" leads to "directed by Frank Borzage". Those of the
    title do not count, because they name the passage, and not what to look for in it.
    """
    wanted = set(split_query(query)) - set(split_words(title))
    stems = [word for word in wanted if len(word) >= _STEM]
    for word in _WORD.finditer(text) if stems else ():
        if any(_share_stem(fold(word[0]), stem) for stem in stems):
            cue = word.start()
            return f"{text[cue:]}\n{text[:cue]}"
    return text


def _share_stem(first: str, second: str) -> bool:
    """Return whether two words differ in no more than the last letters."""
    common = max(_STEM, min(len(first), len(second)) - 2)
    return len(first) >= common and first[:common] == second[:common]


def _link(parent: NodeResult, from_top: int) -> list[Passage]:
    """Return the passages that a parent's query or expansion asks for by their title, or the best.

    The longest title comes first, and of titles that differ in their qualifier the whole one: "No
    Greater Glory director" is about "No Greater Glory", and not about "The Greater Glory" or
    "No Greater Glory (song)". Beyond `from_top`, namesakes follow that a query without a qualifier
    may be about as well.
    """
    linked = sorted(parent.passages, key=lambda p: _asks_for(parent, p.title), reverse=True)
    about: set[tuple[str, ...]] = set()
    for passage in linked[:from_top]:
        bare = tuple(_title_forms(passage.title)[1])
        if _asks_for(parent, passage.title)[0] == len(bare) > 0:
            about.add(bare)
    more = (p for p in linked[from_top:] if tuple(_title_forms(p.title)[1]) in about)
    return [*linked[:from_top], *more]


def _asks_for(parent: NodeResult, title: str) -> tuple[int, bool]:
    """Return how many words of a title a parent asked for, and whether they are the whole title."""
    asked = [split_words(text) for text in (parent.node.query, *parent.expansion)]
    whole, bare = _title_forms(title)
    for form in (whole, bare):
        if any(_contains(words, form) for words in asked):
            return len(form), form is whole
    return 0, False


@lru_cache(maxsize=_MEMOISED)
def _title_forms(title: str) -> tuple[list[str], list[str]]:
    """Return the words of a title, and those without its qualifier."""
    return split_words(title), title_words(title)


def _contains(words: list[str], part: list[str]) -> bool:
    """Return whether a list of words contains another, one word after the other."""
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


@lru_cache(maxsize=_MEMOISED)
def _candidates(
    title: str, text: str, mode: Literal["linked", "entities", "titles"]
) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Return the names that a passage can add to a query, each with its words."""
    names = [title] if mode == "titles" else _names_or_title(title, text)
    return tuple((tuple(split_query(name)), " ".join(name.split())) for name in names)


def _names_or_title(title: str, text: str) -> list[str]:
    """Return the names in a passage, after its title if capitals do not tell names apart."""
    names = find_names(title, text)
    has_capitals = any(map(str.isupper, title + text))
    if has_capitals and not any(map(_has_no_case, title)):
        return names
    return [title, *names]


def _has_no_case(character: str) -> bool:
    """Return whether this is a letter of a script without capitals: Hebrew, Hindi, Chinese, ..."""
    return character >= "\u0590" and unicodedata.category(character) == "Lo"


def find_names(title: str, text: str) -> list[str]:
    """Return the proper names in the title and text of a passage, in order, repeats included.

    A name is a run of capitalised words, with particles inside it. A single word at the start of a
    sentence counts unless it is a stop word, or looks like a verb or an adverb and is not a name
    elsewhere in the passage.
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
    """Yield the runs of capitalised words in a text, with the particles between them."""
    run: list[_Word] = []
    particles: list[_Word] = []
    for word in _read_words(text, in_title=in_title):
        if run and word.gap.strip(" \u00a0"):
            yield run
            run, particles = [], []
        if word.is_capitalised:
            # "The Beatles" is a whole title; in a sentence, "In" or "The" only precedes a name.
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
    """Yield the words of a text; initials join what follows, possessive endings are removed."""
    end, before, possessive = 0, "", False
    for match in _WORD.finditer(text):
        word, gap = match[0], text[end : match.start()]
        if gap == ". " and _is_shortened(before) and word.casefold() not in STOP_WORDS:
            gap = " "
        opens = not in_title and (not before or not _OPENERS.isdisjoint(gap))
        owns = word.endswith(_POSSESSIVES)
        # What follows a possessive is another name: "Orvath's Lantern Works".
        yield _Word(word[:-2] if owns else word, "'s" if possessive else gap, opens)
        end, before, possessive = match.end(), word, owns


def _is_shortened(word: str) -> bool:
    return (len(word) == 1 and word.isupper()) or "." in word or word in _BEFORE_STOP
