"""Options of a source: the part of a recipe that each kind of source checks itself.

Place in the path: called by a source's opener, before anything is sent. On failure: all that is
wrong with the options is told at once, in the words of every other recipe problem.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rsearch_cli.errors import RecipeKeyError, RecipeValueError
from rsearch_cli.recipe.base import BaseConfig
from rsearch_cli.recipe.problems import explain
from rsearch_cli.recipe.schema import SourceConfig

Options = TypeVar("Options", bound=BaseConfig)


def read_options(model: type[Options], name: str, config: SourceConfig) -> Options:
    """Check the options of one source.

    Args:
        model: What its kind of source allows.
        name: Name of the source, for messages.
        config: Its settings.

    Raises:
        RecipeKeyError: All problems are unknown keys.
        RecipeValueError: Some value is not allowed.
    """
    try:
        return model.model_validate(config.options)
    except ValidationError as error:
        problems = error.errors()
        path = ("search", "sources", name, "options")
        sentences = [_describe(problem, path, list(model.model_fields)) for problem in problems]
        unknown = all(problem["type"] == "extra_forbidden" for problem in problems)
        raise (RecipeKeyError if unknown else RecipeValueError)("; ".join(sentences)) from None


def _describe(problem: ErrorDetails, path: Sequence[str], known: Sequence[str]) -> str:
    keys = (*path, *problem["loc"])
    if problem["type"] != "extra_forbidden":
        return explain({**problem, "loc": keys})[1]
    near = difflib.get_close_matches(str(keys[-1]), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"unknown key {'.'.join(map(str, keys))}; {hint}"
