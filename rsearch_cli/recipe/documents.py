"""YAML text to a mapping with the line of every key, and back.

Documents are bounded: a few lines of nested aliases could otherwise exhaust the memory.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rsearch_cli.errors import RecipeError
from rsearch_cli.recipe.nested import Keys
from rsearch_cli.terminal import escape_suspect

MOST_CHARS = 2**18
"""Maximum characters of a document; a recipe with every setting has about 6,000."""

MOST_VALUES = 5000
"""Maximum keys and values of a document, aliases expanded."""

MOST_DEPTH = 20
"""Maximum depth of a document; a recipe needs five levels."""

MOST_KEY_CHARS = 200
"""Maximum characters of a key."""

_MOST_NUMBER_CHARS = 100
_TEXT = "tag:yaml.org,2002:str"
# To YAML 1.1, and so to PyYAML, 5e-6 and 1e3 are text.
_FLOAT_WITH_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Lone surrogates, except those that stand for a byte of a file name (PEP 383).
_NO_TEXT = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class _NoDocument(yaml.MarkedYAMLError):
    """Valid YAML that exceeds the bounds, refers to itself, or contains invalid text."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads 5e-6 as a number and enforces the bounds.

    An alias counts as much as the value it stands for.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value and count what it contains."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._values
        self._values += not is_alias
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _NoDocument(problem=f"more than {MOST_DEPTH} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._sizes[id(node)] = self._values - before
        elif id(node) in self._sizes:
            self._values += self._sizes[id(node)]
        else:
            raise _NoDocument(
                problem="an alias refers to a value that contains it", problem_mark=mark
            )
        if self._values > MOST_VALUES:
            raise _NoDocument(
                problem=f"more than {MOST_VALUES} values, with aliases expanded",
                problem_mark=mark,
            )
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node, mark)
        return node


def _check_scalar(node: yaml.ScalarNode, mark: yaml.Mark) -> None:
    if node.tag != _TEXT and len(node.value) > _MOST_NUMBER_CHARS:
        problem = f"a number of more than {_MOST_NUMBER_CHARS} characters"
        raise _NoDocument(problem=problem, problem_mark=mark)
    if _SURROGATE.search(node.value):
        # JSON, which is also YAML, writes an emoji as two escapes, which PyYAML does not join.
        pairs = node.value.encode("utf-16-le", "surrogatepass")
        node.value = pairs.decode("utf-16-le", "surrogatepass")
        if _NO_TEXT.search(node.value):
            raise _NoDocument(problem="half of a surrogate pair is not text", problem_mark=mark)


class _Dumper(yaml.SafeDumper):
    """The matching dumper, which quotes text that `_Loader` would read as a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", _FLOAT_WITH_EXPONENT, list("-+.0123456789")
    )


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Escapes are only possible within double quotes.
    style = '"' if escape_suspect(text, ascii) != text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Document:
    """A YAML document.

    Attributes:
        data: The content.
        lines: Path of a key to its line, from 1.
        flaws: `(line, sentence)` of what is valid YAML but certainly a mistake.
    """

    data: Any
    lines: dict[Keys, int]
    flaws: tuple[tuple[int, str], ...]


def parse_document(text: str, where: str) -> Document:
    """Parse one YAML document.

    Args:
        text: The document.
        where: Its file or option, for messages.

    Raises:
        RecipeError: The text is not one YAML document, or exceeds the bounds.
    """
    if len(text) > MOST_CHARS:
        raise RecipeError(f"{where}: more than {MOST_CHARS:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        # Construction resolves merge keys, so the nodes are surveyed first.
        lines, flaws = _survey(node) if node else ({}, ())
        data = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and "\n" in text else ""
        flaw = "" if isinstance(error, _NoDocument) else "not valid YAML: "
        raise RecipeError(f"{where}{line}: {flaw}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{where}: not valid YAML: {reason}") from error
    return Document(data, lines, flaws)


def read_document(path: Path, where: str) -> Document:
    """Parse a file that is one YAML mapping.

    Raises:
        RecipeError: It cannot be read, is not a mapping, or exceeds the bounds.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARS + 1)
    except OSError as error:
        raise RecipeError(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: not UTF-8 text: {error.reason}") from error
    document = parse_document(text, where)
    if not isinstance(document.data, dict):
        seen = show_value(document.data)
        raise RecipeError(f"{where}: it must be a mapping of keys, got {seen}")
    return document


def dump_document(data: dict[str, Any]) -> str:
    """Return a mapping as YAML that `parse_document` reads back identically.

    Characters that are not printable are escaped.
    """
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return escape_suspect(text, lambda found: found.encode("unicode_escape").decode("ascii"))


def show_value(value: object) -> str:
    """Return a value as a recipe would write it, in at most 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except TypeError:  # a mapping has a key that JSON does not support, such as a date
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _survey(root: yaml.Node) -> tuple[dict[Keys, int], tuple[tuple[int, str], ...]]:
    """Return the line of every key, and the keys that occur twice in a mapping."""
    lines: dict[Keys, int] = {}
    flaws: list[tuple[int, str]] = []

    def visit(node: yaml.Node, path: Keys) -> None:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                visit(item, (*path, str(index)))
        if not isinstance(node, yaml.MappingNode):
            return
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if len(key) > MOST_KEY_CHARS:
                raise _NoDocument(
                    problem=f"a key of more than {MOST_KEY_CHARS} characters",
                    problem_mark=key_node.start_mark,
                )
            if key in first:
                dotted = ".".join((*path, key))
                flaws.append((line, f"{dotted} is given twice, first on line {first[key]}"))
            first.setdefault(key, line)
            lines[(*path, key)] = line
            visit(value_node, (*path, key))

    visit(root, ())
    return lines, tuple(flaws)
