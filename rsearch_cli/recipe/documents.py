"""YAML text to a plain mapping and back, with the line of every key.

Place in the path: below `recipe.loading`, which merges and checks what comes out of here.
On failure: text that is no YAML mapping raises `RecipeError` at once, since nothing in it can be
checked; a duplicate key is handed on as a flaw, to be reported with all other problems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from rsearch_cli.errors import RecipeError

Keys = tuple[str, ...]

# YAML 1.1, which PyYAML speaks, takes 5e-6 and 1e3 for text: it wants a dot and a signed exponent.
_FLOAT_WITH_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that knows 5e-6 for a number."""


class _Dumper(yaml.SafeDumper):
    """The matching dumper: it quotes text that `_Loader` would take for a number."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", _FLOAT_WITH_EXPONENT, list("-+.0123456789")
    )


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes these line breaks bare, where a reader folds them into a space.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
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
        RecipeError: The text is not one YAML document; the line is named where it is known.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        # Merge keys are folded into their mappings by the construction, so look at the nodes first.
        lines, flaws = _survey(node) if node else ({}, ())
        data = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and "\n" in text else ""
        raise RecipeError(f"{where}{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{where}: not valid YAML: {reason}") from error
    return Document(data, lines, flaws)


def dump_document(data: dict[str, Any]) -> str:
    """Write a mapping as YAML that `parse_document` reads back identically."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


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
            if key in first:
                dotted = ".".join((*path, key))
                flaws.append((line, f"{dotted} is given twice, first on line {first[key]}"))
            first.setdefault(key, line)
            lines[(*path, key)] = line
            visit(value_node, (*path, key))

    visit(root, ())
    return lines, tuple(flaws)
