"""Problems of a recipe, one sentence each, and one exception for all of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic_core import ErrorDetails

from rsearch_cli.errors import RecipeError, RecipeKeyError, RecipeValueError
from rsearch_cli.recipe.documents import show_value
from rsearch_cli.recipe.flags import ANY_NAME, flag_names, schema_fields
from rsearch_cli.terminal import on_one_line

# Messages for pydantic's error types; other types keep pydantic's message.
_RULES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text (put it in quotes)",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of names",
    "model_type": "must be a mapping of keys",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least {min_length}",
}
MOST_PROBLEMS = 20
"""Maximum number of problems that are reported."""

# Minimum similarity, 0 to 1, of a name to suggest.
_NEAR = 0.7


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        kind: An unknown `key`, an invalid `value`, or `other`.
        where: The file and line, or the option, that caused it.
        sentence: The dotted key, what is allowed, and the value seen.
    """

    kind: Literal["key", "value", "other"]
    where: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}"


def recipe_error(name: str, problems: Sequence[Problem], more: int = 0) -> RecipeError:
    """Return one exception for all problems, of the narrowest class that fits them all.

    Args:
        name: Of the recipe.
        problems: At least one; the first ones are reported.
        more: Number of further problems.
    """
    kinds = {problem.kind for problem in problems}
    narrow = {"key": RecipeKeyError, "value": RecipeValueError}
    error = narrow.get(kinds.pop(), RecipeError) if len(kinds) == 1 else RecipeError
    lines = [on_one_line(str(problem)) for problem in problems[:MOST_PROBLEMS]]
    count = len(problems) + more
    if count > 1:
        lines = [f"recipe {name} has {count} problems:", *(f"  {line}" for line in lines)]
    if count > MOST_PROBLEMS:
        lines.append(f"  and {count - MOST_PROBLEMS} more")
    return error("\n".join(lines))


def explain(error: ErrorDetails) -> tuple[Literal["key", "value"], str]:
    """Return the kind of one of pydantic's errors, and a sentence about it."""
    keys = key_path(error)
    dotted = ".".join(map(str, keys))
    if error["type"] in ("extra_forbidden", "invalid_key"):
        return "key", f"unknown key {dotted}; {_allowed_instead(keys)}"
    if error["type"] == "value_error":
        rule = str(error["ctx"]["error"])
        return "value", f"{dotted}: {rule}" if dotted else rule
    ours = _RULES.get(error["type"])
    rule = ours.format(**error.get("ctx", {})) if ours else f"is not allowed ({error['msg']})"
    rule = rule.replace("'", '"')
    field = schema_fields().get(_schema_key(keys))
    if field is not None and type(None) in get_args(field.annotation):
        rule += " or null"
    seen = "" if error["type"] == "missing" else f", got {show_value(error['input'])}"
    return "value", f"{dotted} {rule}{seen}"


def key_path(error: ErrorDetails) -> tuple[str | int, ...]:
    """Return the keys that lead to the value of one of pydantic's errors."""
    return tuple(key for key in error["loc"] if key != "[key]")


def involved_keys(error: ErrorDetails) -> list[tuple[str | int, ...]]:
    """Return the keys named by a rule over several keys, else the keys of the value."""
    keys = key_path(error)
    if error["type"] != "value_error":
        return [keys]
    named = re.findall(r"[a-z_]+(?:\.[a-z_]+)*", str(error["ctx"]["error"]))
    paths = [(*keys, *name.split(".")) for name in named]
    return [path for path in paths if _schema_key(path) in schema_fields()] or [keys]


def _schema_key(keys: Sequence[str | int]) -> str:
    """Return the schema's name of a path: names chosen by the recipe become `*`."""
    known, dotted = schema_fields(), ""
    for key in map(str, keys):
        step = f"{dotted}.{key}" if dotted else key
        any_name = f"{dotted}.{ANY_NAME}."
        dotted = f"{dotted}.{ANY_NAME}" if any(k.startswith(any_name) for k in known) else step
    return dotted


def _allowed_instead(keys: Sequence[str | int]) -> str:
    """Suggest the most similar key of all sections, or list the keys of this section."""
    unknown = str(keys[-1])
    section = _schema_key(keys[:-1])
    inside = f"{section}." if section else ""
    siblings = [k for k in schema_fields() if k.rpartition(".")[0] == section]
    # Siblings come first, so that they win a tie.
    candidates = siblings + [k for k in schema_fields() if k not in siblings]
    near = max(candidates, key=lambda known: _likeness(unknown, known))
    if _likeness(unknown, near) >= _NEAR:
        near = near.replace(inside, "".join(f"{k}." for k in keys[:-1]), 1) if inside else near
        return f"did you mean {near}?"
    return f"known here: {', '.join(k.removeprefix(inside) for k in siblings)}"


def _likeness(unknown: str, known: str) -> float:
    """Return how similar an unknown key is to a known one, 0 to 1.

    People flatten, abbreviate and remember flags: `policy.lora.r` is compared as `r`, `lora_r` and
    `policy_lora_r`, `train.learning_rate` also as `lr`, and `policy.model` also as `model_name`.
    """
    parts = known.split(".")
    forms = ["_".join(parts[i:]) for i in range(len(parts))]
    forms += [name.removeprefix("--").replace("-", "_") for name in flag_names(known)]
    words = parts[-1].split("_")
    if len(words) > 1:
        forms.append("".join(word[0] for word in words))
    return max(difflib.SequenceMatcher(None, unknown, form).ratio() for form in forms)
