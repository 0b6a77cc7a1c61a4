"""From the name or path of a recipe, with overrides, to a checked `Recipe`.

Settings come in layers, and a higher one takes precedence:

    command-line flag  >  --set a.b=c  >  the recipe  >  the recipe it extends  >  the default

Mappings merge key by key; lists and scalars are replaced. A dotted key edits what is there,
defaults included: `search.sources.News.corpus` leaves the other sources alone. All problems of all
layers are raised together, one line each.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rsearch_cli.errors import RecipeError, RecipeNotFound
from rsearch_cli.recipe.documents import dump_document, read_document, show_value
from rsearch_cli.recipe.layers import Layer, blame, fill_in, option_layers, replace_sources
from rsearch_cli.recipe.nested import leaves, merge
from rsearch_cli.recipe.problems import (
    MOST_PROBLEMS,
    Problem,
    explain,
    involved_keys,
    recipe_error,
)
from rsearch_cli.recipe.schema import Recipe, SearchConfig
from rsearch_cli.recipe.trust import differing, is_somebodys, refusal, take_harmless
from rsearch_cli.recipe.unread import Given

_FILE = ("source", "path", "difficulty")


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe that has been checked.

    Attributes:
        name: Its file's name without `.yaml`.
        path: Its file.
        recipe: All settings, resolved.
        given: The settings given as options.
        notes: Changes made while loading, one line each.
        left_out: Settings of somebody else's recipe that were not accepted, by dotted key; only
            those that would have changed something.
    """

    name: str
    path: Path
    recipe: Recipe
    given: tuple[Given, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, Any] = field(default_factory=dict)


def load_recipe(
    name_or_path: str,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    *,
    trusted: bool | None = None,
    source: str | None = None,
) -> LoadedRecipe:
    """Find a recipe, resolve what it extends, apply the overrides and check the whole.

    Args:
        name_or_path: Name of a shipped recipe, or a path: it ends in .yaml or .yml or contains a
            separator.
        overrides: `a.b=c` as for `--set`, with c in YAML; the last one for a key wins.
        flags: Dotted key to value; None means not given.
        trusted: True accepts every setting of the file, False only harmless ones (see
            `recipe.trust`). None accepts the user's own recipes, and refuses one written elsewhere
            that contains other than harmless settings.
        source: Kind of all search sources, or their settings as YAML, whatever the file says;
            overrides and flags take precedence. None leaves them as they are.

    Raises:
        RecipeNotFound: No recipe has this name or path, or one that it extends is missing.
        RecipeKeyError: All problems are unknown keys.
        RecipeValueError: All problems are invalid values.
        RecipeError: Several kinds of problems, text that is not YAML, recipes that extend each
            other in a circle, or a recipe that is not trusted.
    """
    path = _find(name_or_path)
    files, flaws = _read_chain(path, trusted=trusted)
    loaded = _resolve(path, files, flaws, overrides, flags or {}, source)
    left = loaded.left_out
    if left and (trusted is None or "policy.model" in left):
        raise RecipeError(refusal(_display(path), left))
    return loaded


def override_recipe(
    recipe: Recipe,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    source: str | None = None,
) -> LoadedRecipe:
    """Apply overrides to a recipe that is already loaded, and check the whole; see `load_recipe`.

    Raises:
        RecipeError: A setting is unknown, or has a value that is not allowed.
    """
    data = recipe.model_dump()
    code = recipe.policy.trust_remote_code  # which the dump leaves out
    flags = {"policy.trust_remote_code": code or None, **(flags or {})}
    name = Path(recipe.output_dir.replace("{recipe}", "recipe")).name
    files = [Layer("the recipe", data)]
    return _resolve(Path(f"{name}.yaml"), files, [], overrides, flags, source)


def _resolve(
    path: Path,
    files: list[Layer],
    flaws: list[Problem],
    overrides: Sequence[str],
    flags: Mapping[str, object],
    source: str | None,
) -> LoadedRecipe:
    """Merge the layers of a recipe with its overrides and check the result."""
    options, mistakes = option_layers(overrides, flags)
    given = tuple(setting for layer in options for setting in layer.settings())
    if source is not None:
        files, kinds = replace_sources(files, source, SearchConfig().sources)
        options = [*kinds, *options]
    problems = [*flaws, *mistakes, *_only_on_the_command_line(files)]
    added, notes = _put_file_for_world(_merge_all(files, options), options)
    recipe, errors = _validate(_merge_all(files, [*options, *added]))
    for error in errors[:MOST_PROBLEMS]:
        kind, sentence = explain(error)
        where = blame(involved_keys(error), [*files, *options], otherwise=files[-1].where)
        problems.append(Problem(kind, where, sentence))
    if problems or recipe is None:
        raise recipe_error(path.stem, problems, more=max(0, len(errors) - MOST_PROBLEMS))
    return LoadedRecipe(path.stem, path, recipe, given, notes, _left_out(files, options, recipe))


def peek(
    key: str, name_or_path: str, overrides: Sequence[str], flags: Mapping[str, object]
) -> object:
    """Return the unchecked value of a top-level key after merging; None if no layer sets it.

    Raises:
        RecipeError: A layer cannot be read.
    """
    files, _ = _read_chain(_find(name_or_path), trusted=True)
    options, _ = option_layers(overrides, flags)
    return _merge_all(files, options).get(key)


def list_recipes() -> list[LoadedRecipe]:
    """Return the shipped recipes, by name."""
    return [load_recipe(str(path)) for path in _shipped().values()]


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe with every setting as YAML that loads identically."""
    return dump_document(recipe.model_dump())


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes: in the installed package, or in the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def _merge_all(files: Sequence[Layer], options: Sequence[Layer]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for layer in files:
        tree = merge(tree, layer.data)
    defaults = Recipe(purpose="", hardware="").model_dump()
    for layer in options:
        tree = merge(fill_in(tree, layer.path[:-1], defaults), layer.data)
    return tree


def _put_file_for_world(
    tree: dict[str, Any], options: Sequence[Layer]
) -> tuple[list[Layer], tuple[str, ...]]:
    """Let a question file that is given as an option replace the generated world.

    Returns:
        Layers above the options, and a note about them; nothing if the recipe does not use the
        world, or if an option asks for it.
    """
    questions = tree.get("questions")
    by_option = {name: any(layer.sets(("questions", name)) for layer in options) for name in _FILE}
    if (
        not isinstance(questions, dict)
        or questions.get("source") != "world"
        or questions.get("path") is None
        or by_option["source"]
        or not by_option["path"]
    ):
        return [], ()
    note = f"questions.source is set to custom: {questions['path']} replaces the generated world"
    layers, _ = option_layers((), {"questions.source": "custom"})
    if questions.get("difficulty") is not None and not by_option["difficulty"]:
        layers += option_layers(["questions.difficulty=null"], {})[0]
        note += f", and questions.difficulty ({', '.join(questions['difficulty'])}) is reset"
    return layers, (note,)


def _shipped() -> dict[str, Path]:
    paths = recipes_folder().glob("*.yaml")
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def _find(name_or_path: str, beside: Path | None = None, asker: str = "") -> Path:
    """Find the file of a recipe; a relative path starts in the folder `beside`."""
    is_path = name_or_path.endswith((".yaml", ".yml")) or any(
        separator in name_or_path for separator in ("/", os.sep)
    )
    shipped = _shipped()
    if is_path:
        path = (beside or Path()) / os.path.expanduser(name_or_path)
        if os.path.isfile(path):  # which, unlike Path's, accepts names that no system takes
            return path
        missing = f"no recipe file at {path}"
    elif name_or_path in shipped:
        return shipped[name_or_path]
    else:
        missing = f"no recipe is called '{name_or_path}'"
    near = difflib.get_close_matches(Path(name_or_path).stem, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise RecipeNotFound(f"{asker}{missing}{hint} List them with: rsearch recipes")


def _read_chain(
    path: Path, chain: tuple[Path, ...] = (), *, trusted: bool | None
) -> tuple[list[Layer], list[Problem]]:
    """Return the layers of a recipe and of all it extends, lowest first, and their problems."""
    where = _display(path)
    if path.resolve() in [seen.resolve() for seen in chain]:
        names = " -> ".join(seen.name for seen in (*chain, path))
        raise RecipeError(f"{where}: recipes extend each other in a circle: {names}")
    document = read_document(path, where)
    data: dict[str, Any] = dict(document.data)
    left: dict[str, Any] = {}
    if not (trusted or (trusted is None and not is_somebodys(path))):
        data, left = take_harmless(data)
    base = data.pop("extends", None)
    layers: list[Layer] = []
    problems: list[Problem] = []
    layer = Layer(where, data, document.lines, left_out=left)
    at = layer.locate(["extends"])
    if isinstance(base, str):
        base_path = _find(base, path.parent, f"{at}: extends: ")
        layers, problems = _read_chain(base_path, (*chain, path), trusted=trusted)
    elif base is not None:
        sentence = f"extends must be a recipe's name or path, got {show_value(base)}"
        problems.append(Problem("value", at, sentence))
    problems += [Problem("other", f"{where}:{line}", flaw) for line, flaw in document.flaws]
    return [*layers, layer], problems


def _validate(tree: dict[str, Any]) -> tuple[Recipe | None, list[ErrorDetails]]:
    """Return the recipe, or all of pydantic's errors."""
    try:
        return Recipe.model_validate(tree), []
    except ValidationError as invalid:
        errors = invalid.errors()
    unknown = [error for error in errors if error["type"] == "extra_forbidden"]
    if unknown:
        # Pydantic does not check rules over several keys of a section that has an unknown key.
        known = tree
        for error in unknown:
            known = _without(known, error["loc"])
        errors = [*unknown, *_validate(known)[1]]
    return None, errors


def _only_on_the_command_line(files: Sequence[Layer]) -> list[Problem]:
    """Report files that try to enable code that ships with a model."""
    sentence = "policy.trust_remote_code is not allowed in a recipe; use --trust-remote-code"
    keys = ("policy", "trust_remote_code")
    given = [layer for layer in files if keys in dict(leaves(layer.data))]
    return [Problem("value", layer.locate(keys), sentence) for layer in given]


def _left_out(files: Sequence[Layer], options: Sequence[Layer], recipe: Recipe) -> dict[str, Any]:
    """Return what was not accepted from the files, is not given as an option, and matters."""
    left = {key: value for layer in files for key, value in layer.left_out.items()}
    given = {key for key in left if any(layer.sets(key.split(".")) for layer in options)}
    wanted = {key: value for key, value in left.items() if key not in given}
    return differing(wanted, recipe.model_dump())


def _without(tree: dict[Any, Any], keys: Sequence[str | int]) -> dict[Any, Any]:
    first, rest = keys[0], keys[1:]
    if not rest:
        return {key: value for key, value in tree.items() if key != first}
    return {**tree, first: _without(tree[first], rest)}


def _display(path: Path) -> str:
    """Return a path relative to the working folder, if it is inside."""
    here, absolute = Path.cwd(), path.resolve()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)
