"""The grammar of search plans, line by line, as models really write it.

A line that can be read in one way only is read, and the repair is noted; anything else is
`Unclear`.

    A: query text (General)          a node: label, query, source in the last bracket of the line
    A -> B; C -> B                   edges: the parent, an arrow, the child
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import pairwise

from rsearch_cli.protocol.characters import INVISIBLE, flatten
from rsearch_cli.types import PlanNode

Note = Callable[[str], None]
"""Called with a description of each repair."""

ARROW = re.compile(r" ?(?:[-\u2013\u2014\u2212=]{1,8} ?>|[→⇒⟶⟹➔➜➡↦⇨]) ?")
FENCE = re.compile(r"(?:`{3,}|~{3,}) ?\w*")

_SHOWN = 60
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_ODD_BLANK = re.compile(rf"[^\S \t]|{INVISIBLE.pattern}")
_BULLETS = "-*+•·◦▪‣\u2013—># "
_ENDINGS = " .,;。、"
_MARKS_DROPPED = "bullet or markdown marks dropped"
_QUOTES = ('""', "''", "“”", "‘’", "„“", "«»", "「」", "『』")
_OPENERS, _CLOSERS = "([{<【〔「『《〈‹«", ")]}>】〕」』》〉›»"
_NO_EDGES = {"none", "n/a", "null", "nil", "empty", "no edges", "no dependencies", ""}

_LABEL = r"[A-Za-z][A-Za-z0-9_]{0,15}|[0-9]{1,2}"
_BARE_LABEL = re.compile(rf"(?:node )?[\"'*]{{0,2}}({_LABEL})[\"'*]{{0,2}}", re.I)
_HEAD = re.compile(
    rf"""(?:node\ )?(?:
        ["'*]{{0,2}}(?P<plain>{_LABEL})["'*]{{0,2}}\ ?:    # A:   "A":
      | [\[(](?P<boxed>[A-Z]\d?|\d{{1,2}})[\])]\ ?:?         # [A]   (A):
      | (?P<listed>[A-Z]\d?|\d{{1,2}})\)                    # A)    1)
      | (?P<counted>\d{{1,2}})\.                            # 1.
    )\ ?""",
    re.I | re.X,
)
_INNER_HEAD = re.compile(r"[\[(]?[A-Z]\d?(?: ?:|[\])])", re.I)
_NEXT_HEAD = re.compile(rf" ?[;,|]? ?(?:node )?(?:{_LABEL}) ?:", re.I)
_HEADING = re.compile(r"(node|edge)s?(?: ?:|$) ?", re.I)
_RESERVED = {"NODE", "NODES", "EDGE", "EDGES"}


class Unclear(Exception):
    """Raised for an ambiguous or malformed line; the message is the reason."""


def shown(value: str) -> str:
    """Quote a value, shortened to fit into a message."""
    return repr(value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…")


def plain_line(line: str, note: Note) -> str:
    """Normalise a line: plain spaces, ASCII punctuation, no bullets, markdown or quotes."""
    flat = flatten(line)
    if _ODD_BLANK.search(line):
        note("unusual white space or invisible characters read as blanks or dropped")
    plain = flat.translate(_FULL_WIDTH)
    if plain != flat:
        note("full-width characters read as plain ones")
    bare = re.sub(r"\*{2,}", "", plain.replace("`", "")).lstrip(_BULLETS)
    if bare != plain:
        note(_MARKS_DROPPED)
    return _unquoted(_without_ending(bare, note), note)


def read_heading(line: str, note: Note) -> tuple[str, str] | None:
    """Read `Nodes:` or `Edges:`.

    Returns:
        `nodes` or `edges` with the rest of the line, or None if it is not a heading.
    """
    match = _HEADING.match(line)
    if not match:
        return None
    name = match[1].lower() + "s"
    canonical = f"{name.capitalize()}:"
    if match[0].strip() != canonical:
        note(f"heading {shown(match[0].strip())} read as '{canonical}'")
    rest = line[match.end() :].lstrip(_BULLETS)
    if rest != line[match.end() :]:
        note(_MARKS_DROPPED)
    return name, rest


def split_nodes(line: str, sources: Collection[str], note: Note) -> list[str]:
    """Split a line where a source in brackets is followed by another label or heading."""
    bracket = _source_bracket(tuple(sources))
    cuts = [b.end() for b in bracket.finditer(line) if _NEXT_HEAD.match(line, b.end())]
    if not cuts:
        return [line]
    note("several parts on one line read as lines of their own")
    return [line[start:end].strip(" ;,|") for start, end in pairwise([0, *cuts, len(line)])]


@lru_cache(maxsize=32)
def _source_bracket(sources: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(map(re.escape, sources))
    return re.compile(rf"[{re.escape(_OPENERS)}] ?(?:{names}) ?[{re.escape(_CLOSERS)}]", re.I)


def has_label(line: str) -> bool:
    """Whether a line starts with a label."""
    return _HEAD.match(line) is not None


def read_label(line: str, note: Note) -> tuple[str, str]:
    """Read the label at the start of a node's line.

    Returns:
        The label in upper case, and the rest of the line.

    Raises:
        Unclear: There is no label.
    """
    match = _HEAD.match(line)
    if not match:
        raise Unclear(f"{shown(line)} has no label; write it as 'A: query (source)'")
    label, rest = "".join(match.groups("")).upper(), line[match.end() :]
    if label.isdigit() and _INNER_HEAD.match(rest):
        note(f"numbering {shown(match[0].strip())} dropped")
        return read_label(rest, note)
    if label in _RESERVED:
        raise Unclear(f"label '{label}' cannot be told from a heading")
    if match[0].strip() != f"{label}:":
        note(f"label {shown(match[0].strip())} read as '{label}:'")
    return label, rest


def read_node(label: str, text: str, sources: Collection[str], note: Note) -> PlanNode:
    """Read query and source, which is the last bracket of a line; queries may contain brackets.

    Returns:
        The node, with its query unquoted and its source spelt as in the recipe. If the recipe has
        a single source, a line may omit it.

    Raises:
        Unclear: The query is empty, or the source missing, unknown, given twice or not at the end.
    """
    if not text:
        raise Unclear(f"node {label} has no query and no source")
    text = _unquoted(_without_ending(text, note), note)
    closed = text[-1:] and text[-1] in _CLOSERS
    start = max(text.rfind(opener, 0, len(text) - 1) for opener in _OPENERS)
    if start < 0 or not (closed or _match_source(text[start:], sources)):
        known = any(source in text for source in sources)
        if len(sources) == 1 and not known:
            (only,) = sources
            note(f"{shown(text)} names no source; {only} is the only one")
            return PlanNode(label, _bare_query(text, note), only)
        fault = "does not end in its source" if known else "has no source"
        raise Unclear(f"{shown(text)} {fault}; write it in brackets at the end of the line")
    source = _match_source(text[start:], sources)
    if source is None:
        raise Unclear(f"source {shown(text[start + 1 : -1].strip())} is not {_listed(sources)}")
    query = text[:start].rstrip(_OPENERS + " ")
    if text[len(query) :].strip() != f"({source})":
        note(f"source {shown(text[len(query) :].strip())} read as '({source})'")
    query = _bare_query(query, note)
    if _source_bracket(tuple(sources)).search(query):
        raise Unclear(f"{shown(text)} names two sources; a node has one")
    if not query:
        raise Unclear(f"node {label} has no query")
    if label.isdigit() and _INNER_HEAD.match(query):
        raise Unclear(f"node {label}: query {shown(query)} begins with a label of its own")
    return PlanNode(label, query, source)


def _bare_query(text: str, note: Note) -> str:
    """Strip enclosing quotes, leading colons and trailing opening brackets, in any order."""
    unquoted = _unquoted(text, note)
    bare = unquoted.lstrip(" :").rstrip(_OPENERS + " ")
    if bare != unquoted:
        note(f"query {shown(unquoted)} read as {shown(bare)}")
    return bare if bare == text else _bare_query(bare, note)


def _match_source(bracket: str, sources: Collection[str]) -> str | None:
    """Return the source in a bracket: the exact name, or else the only one with another case."""
    name = bracket.strip(_OPENERS + _CLOSERS + " \"'*“”")
    name = re.sub(r"^source ?[:=] ?", "", name, flags=re.I).strip("\"' ")
    if name in sources:
        return name
    alike = [source for source in sources if source.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _listed(sources: Collection[str]) -> str:
    names = list(sources)
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def means_no_edges(line: str) -> bool:
    """Whether a line of the Edges section states that there are none."""
    return line.strip("()[]{} -.").casefold() in _NO_EDGES


def read_edges(line: str, note: Note) -> list[tuple[str, str]]:
    """Read the edges of one line; `A -> B -> C` is two.

    Returns:
        `(parent, child)` labels in upper case; the nodes are not checked here.

    Raises:
        Unclear: A part is not an edge.
    """
    edges: list[tuple[str, str]] = []
    if "&gt;" in line:
        note("'&gt;' read as '>'")
        line = line.replace("&gt;", ">")
    if re.search(r"[,、]", line):
        note("commas between edges read as semicolons")
    for part in re.split(r"[;,、]", line):
        edge, bare = part.strip(), part.strip("()[]{} ")
        if bare != edge and not re.search(r"[(\[{]", bare):
            note("brackets around edges dropped")
            edge = bare
        if edge:
            edges += _read_chain(edge, note)
    return edges


def _read_chain(edge: str, note: Note) -> list[tuple[str, str]]:
    ends = ARROW.split(edge)
    if len(ends) == 1:
        raise Unclear(f"edge {shown(edge)} has no '->'")
    labels = [_read_end(end, edge) for end in ends]
    if any(arrow.strip() != "->" for arrow in ARROW.findall(edge)):
        note(f"the arrow of {shown(edge)} read as '->'")
    if ends != labels:
        note(f"edge {shown(edge)} read as {shown(' -> '.join(labels))}")
    if len(labels) > 2:
        note(f"chain {shown(edge)} read as {len(labels) - 1} edges")
    return list(pairwise(labels))


def _read_end(end: str, edge: str) -> str:
    match = _BARE_LABEL.fullmatch(end)
    if not match:
        raise Unclear(f"edge {shown(edge)}: {shown(end)} is not a label")
    return match[1].upper()


def _without_ending(text: str, note: Note) -> str:
    bare = text.rstrip(_ENDINGS)
    if bare != text.rstrip():
        note(f"{shown(text[len(bare) :].strip())} at the end dropped")
    return bare


def _unquoted(text: str, note: Note) -> str:
    """Strip quotes that enclose the whole text; `"A" and "B"` is left alone."""
    inner = text[1:-1]
    for pair in _QUOTES:
        if text[:1] + text[1:][-1:] == pair and pair[0] not in inner and pair[1] not in inner:
            note("quotes dropped")
            return _unquoted(inner.strip(), note)
    return text
