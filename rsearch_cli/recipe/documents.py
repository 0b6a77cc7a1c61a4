"""YAML text to a plain mapping and back, with the line of every key.

Place in the path: below `recipe.loading`, which merges and checks what comes out of here.
On failure: text that is no YAML mapping raises `RecipeError` at once, since nothing in it can be
checked; a duplicate key is handed on as a flaw, to be reported with all other problems.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rsearch_cli.errors import RecipeError
from rsearch_cli.terminal import escape_suspect

Keys = tuple[str, ...]

MOST_CHARS = 2**18
"""Most characters of a document; a recipe with every setting spelt out has some 6,000."""

MOST_VALUES = 5000
"""Most keys and values of a document, each alias counted as what it stands for."""

MOST_DEPTH = 20
"""Most levels of a document; the settings of a recipe have five."""

MOST_KEY_CHARS = 200
"""Most characters of a key."""

_MOST_NUMBER_CHARS = 100
_TEXT = "tag:yaml.org,2002:str"
# YAML 1.1, which PyYAML speaks, takes 5e-6 and 1e3 for text: it wants a dot and a signed exponent.
_FLOAT_WITH_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Halves of pairs that stand for no byte of a file name (PEP 383).
_NO_TEXT = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class _NoDocument(yaml.MarkedYAMLError):
    """Valid YAML that is larger than any recipe, endless, or holds what is no text."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that knows 5e-6 for a number, and keeps documents within bounds.

    An alias is counted as all that it stands for: a few lines of nested aliases can stand for more
    values than any memory holds.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value; its size is known only once it is whole."""
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
            raise _NoDocument(problem="an alias refers to what it stands in", problem_mark=mark)
        if self._values > MOST_VALUES:
            raise _NoDocument(
                problem=f"more than {MOST_VALUES} values, aliases counted as what they stand for",
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
        # JSON, which is YAML too, writes an emoji as two escapes; PyYAML leaves them apart.
        pairs = node.value.encode("utf-16-le", "surrogatepass")
        node.value = pairs.decode("utf-16-le", "surrogatepass")
        if _NO_TEXT.search(node.value):
            raise _NoDocument(problem="half of a surrogate pair is no text", problem_mark=mark)


class _Dumper(yaml.SafeDumper):
    """The matching dumper: it quotes text that `_Loader` would take for a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", _FLOAT_WITH_EXPONENT, list("-+.0123456789")
    )


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only between double quotes can a character be written as an escape.
    style = '"' if escape_suspect(text, ascii) != text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Document:
    """A YAML document.

    Attributes:
        data: What the document says.
        lines: Path of a key to the line it stands on, counted from 1.
        flaws: `(line, sentence)` of each thing that is valid YAML but surely a mistake.
    """

    data: Any
    lines: dict[Keys, int]
    flaws: tuple[tuple[int, str], ...]


def parse_document(text: str, where: str) -> Document:
    """Parse one YAML document.

    Args:
        text: The document.
        where: File or option it comes from, for messages.

    Raises:
        RecipeError: The text is not one YAML document, or larger than any recipe; the line is named
            where it is known.
    """
    if len(text) > MOST_CHARS:
        raise RecipeError(f"{where}: more than {MOST_CHARS:,} characters, which no recipe has")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        # Merge keys are folded into their mappings by the construction, so look at the nodes first.
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
        RecipeError: It cannot be read, is no such mapping, or larger than any recipe.
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
    """Write a mapping as YAML that `parse_document` reads back identically.

    What must not reach a terminal is escaped.
    """
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return escape_suspect(text, lambda found: found.encode("unicode_escape").decode("ascii"))


def show_value(value: object) -> str:
    """A value as a recipe would write it, at most 60 characters long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except TypeError:  # a key of a mapping that JSON does not have, such as a date
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _survey(root: yaml.Node) -> tuple[dict[Keys, int], tuple[tuple[int, str], ...]]:
    """Line of every key, and the keys that stand twice in one mapping."""
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
