"""Layers of settings: where each comes from, how they merge, and which one caused an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rsearch_cli.recipe.documents import MOST_DEPTH, MOST_KEY_CHARS, parse_document
from rsearch_cli.recipe.flags import flag_of
from rsearch_cli.recipe.nested import Keys, leaves, look_up, nest
from rsearch_cli.recipe.problems import Problem
from rsearch_cli.terminal import shorten


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        where: The file, the flag or `--set`.
        data: The settings, nested.
        lines: Path of a key to its line; empty for an option.
        path: The key that an option sets; empty for a file.
        left_out: Settings of a file that were not accepted, by dotted key; see `recipe.trust`.
    """

    where: str
    data: dict[str, Any]
    lines: Mapping[Keys, int] = field(default_factory=dict)
    path: Keys = ()
    left_out: Mapping[str, Any] = field(default_factory=dict)

    def sets(self, keys: Sequence[str | int]) -> bool:
        """Whether this layer sets the key, or a value that contains it."""
        data: Any = self.data
        for key in keys:
            if not isinstance(data, dict):
                break
            if key not in data:
                return False
            data = data[key]
        return True

    def settings(self) -> list[tuple[str, str]]:
        """For an option: how it was given, with the dotted key of each value in it."""
        keys = [".".join(keys) for keys, _ in leaves(self.data)]
        return [
            (f"{self.where} {key}" if self.where == "--set" else self.where, key) for key in keys
        ]

    def locate(self, keys: Sequence[str | int]) -> str:
        """The place of a key, with its line if known."""
        line = self.lines.get(tuple(map(str, keys)))
        return f"{self.where}:{line}" if line else self.where


def option_layers(
    overrides: Sequence[str], flags: Mapping[str, object]
) -> tuple[list[Layer], list[Problem]]:
    """Return a layer for each `--set` and each flag, lowest first, and the mistakes in them.

    Raises:
        RecipeError: The value of a `--set` is not YAML.
    """
    layers: list[Layer] = []
    problems: list[Problem] = []
    for override in overrides:
        dotted, equals, text = override.partition("=")
        dotted = dotted.strip()
        keys = dotted.split(".")
        is_key = len(keys) <= MOST_DEPTH and len(dotted) <= MOST_KEY_CHARS
        if not equals or not all(keys) or not is_key:
            sentence = f"'{shorten(override, 60)}' is not KEY=VALUE, as in train.max_steps=20"
            problems.append(Problem("other", "--set", sentence))
            continue
        value = parse_document(text, f"--set {dotted}")
        problems += [Problem("other", "--set", f"{dotted}: {flaw}") for _, flaw in value.flaws]
        layers.append(_option("--set", dotted, value.data))
    for dotted, given in flags.items():
        if given is not None:
            layers.append(_option(flag_of(dotted), dotted, given))
    return layers, problems


def replace_sources(
    files: Sequence[Layer], source: str, names: Iterable[str]
) -> tuple[list[Layer], list[Layer]]:
    """Put one source in the place of all search sources of some files; each keeps its corpus.

    Args:
        files: Layers of files, lowest first.
        source: Its kind, or its settings as YAML.
        names: Names of the sources if no file has any.

    Returns:
        The files without what belongs to other kinds, and a layer above them for each source.

    Raises:
        RecipeError: `source` is not YAML.
    """
    kept: list[Layer] = []
    found: dict[str, Any] = {}
    for layer in files:
        data, sources = layer.data, look_up(layer.data, "search", "sources")
        if isinstance(sources, dict):
            found |= sources
            corpora = {name: _keep_corpus(config) for name, config in sources.items()}
            data = {**data, "search": {**data["search"], "sources": corpora}}
        left = {k: v for k, v in layer.left_out.items() if not k.startswith("search.sources.")}
        kept.append(replace(layer, data=data, left_out=left))
    given = parse_document(source, "--source").data
    settings = given if isinstance(given, dict) else {"type": source}
    paths = [("search", "sources", str(name)) for name in found or names]
    return kept, [Layer("--source", nest(path, settings), path=path) for path in paths]


def fill_in(tree: dict[str, Any], path: Keys, defaults: dict[str, Any]) -> dict[str, Any]:
    """Write out the defaults of the mappings along a path.

    Without this, `--set search.sources.News.corpus=FILE` would drop all other sources.
    """
    if not path:
        return tree
    key, rest = path[0], path[1:]
    default = defaults.get(key)
    inner = tree.get(key, default)
    if not isinstance(default, dict) or not isinstance(inner, dict):
        return tree
    return {**tree, key: fill_in(inner, rest, default)}


def blame(paths: Sequence[Sequence[str | int]], layers: Sequence[Layer], otherwise: str) -> str:
    """The place where the highest layer sets one of the keys or their section, or `otherwise`."""
    while paths:
        for layer in reversed(layers):
            for keys in paths:
                if keys and layer.sets(keys):
                    return layer.locate(keys)
        paths = [keys[:-1] for keys in paths if keys]
    return otherwise


def _option(where: str, dotted: str, value: object) -> Layer:
    path = tuple(dotted.split("."))
    return Layer(where, nest(path, value), path=path)


def _keep_corpus(config: Any) -> Any:
    """Return the settings of a source that any kind may have; a mistake stays one."""
    if not isinstance(config, dict):
        return config
    return {key: value for key, value in config.items() if key == "corpus"}
