"""The documentation as the tests read it: pages, links, anchors, code blocks, command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks/README.md",
        ROOT / "rsearch_cli/models/nano/README.md",
    ]
)

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`(rsearch [a-z][^`]*)`")
_ENDS = {"&&", "||", "|", ";", "#", ">", "2>", "&"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return [code for kind, code in _FENCE.findall(read(page)) if kind == language]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", read(page))


def relative_links(page: Path) -> list[str]:
    """Targets of links and pictures that lie in the repository."""
    return [t for t in _LINK.findall(prose(page)) if "://" not in t and not t.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(anchor == slug or anchor.startswith(f"{slug}-") for anchor in found)
        found.add(f"{slug}-{number}" if slug in found else slug)
    return found


def command_lines(page: Path) -> Iterator[str]:
    """Every shell command that a page prints: a line of a `bash` block, or inline code."""
    for code in blocks(page, "bash"):
        yield from (line for line in code.replace("\\\n", " ").splitlines() if line.strip())
    yield from _INLINE.findall(prose(page))


def rsearch_calls(line: str) -> list[list[str]]:
    """The arguments of each `rsearch` that a command line starts; comments are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    calls: list[list[str]] = []
    open_call: list[str] | None = None
    for word in lexer:
        if word in _ENDS:
            open_call = None
        elif open_call is not None:
            open_call.append(word)
        elif word.rpartition("/")[2] == "rsearch":
            open_call = []
            calls.append(open_call)
    return calls
