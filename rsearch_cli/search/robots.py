"""robots.txt (RFC 9309): which pages of a site may be read.

Python's own `urllib.robotparser` takes the first rule that matches rather than the longest one, and
knows no wildcards.
"""

from __future__ import annotations

import re
from functools import lru_cache

PRODUCT = "rsearch"
"""Name by which a robots.txt can address rsearch, in lower case."""

MOST_BYTES = 500 * 1024
"""Bytes of a robots.txt that are read, the least that the RFC asks for."""

_PRODUCT = re.compile(r"[a-zA-Z_-]+")
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")

Rule = tuple[bool, str]
"""Whether it allows, and the pattern of the paths that it is about."""


def may_read(robots: str, path: str) -> bool:
    """Whether a site allows rsearch to read a page.

    Args:
        robots: Text of its robots.txt; "" allows everything.
        path: Path of the page with its query, beginning with a slash.
    """
    path = _normalise(path)
    # Of the patterns that match, the longest one decides, and of equal ones that which allows.
    matching = [(len(rule[1]), rule[0]) for rule in _own_rules(robots) if _matches(rule[1], path)]
    return max(matching, default=(0, True))[1]


@lru_cache(maxsize=128)
def _own_rules(robots: str) -> tuple[Rule, ...]:
    """Return the rules of the groups for rsearch, or else of those for all."""
    own: list[Rule] = []
    of_all: list[Rule] = []
    named: set[str] = set()
    in_rules, is_named = False, False
    for line in robots.splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon or key not in ("user-agent", "allow", "disallow"):
            continue
        if key == "user-agent":
            if in_rules:
                named, in_rules = set(), False
            product = _PRODUCT.match(value)
            named.add(product[0].lower() if product else value)
            is_named = is_named or PRODUCT in named
            continue
        in_rules = True
        if value:  # an empty rule says nothing
            rule = (key == "allow", _normalise(value))
            own += [rule] if PRODUCT in named else []
            of_all += [rule] if "*" in named else []
    return tuple(own if is_named else of_all)


def _matches(pattern: str, path: str) -> bool:
    """Whether a path begins with a pattern, in which `*` is any text and `$` its end.

    Piece by piece rather than with a regular expression, which a pattern of many stars would keep
    busy for ever.
    """
    anchored = pattern.endswith("$")
    first, *others = (pattern[:-1] if anchored else pattern).split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    for number, piece in enumerate(others, 1):
        if anchored and number == len(others):
            return path.endswith(piece) and len(path) - len(piece) >= at
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return not anchored or at == len(path)


def _normalise(path: str) -> str:
    """Return the one spelling of a path or pattern in which they are compared."""
    encoded = "".join(c if c.isascii() else _escape(c) for c in path)
    return _ESCAPE.sub(_tidy_escape, encoded)


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


def _tidy_escape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()
