"""What is wrong with a recipe, in plain words.

Place in the path: beside `recipe.loading`, which finds the problems and where they come from; here
each becomes one sentence and all together one exception. On failure: nothing here fails.
"""

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

# Pydantic's error types in our words; a type that is missing here keeps pydantic's own sentence.
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
"""Most problems of a recipe that are put into words."""

# Least likeness, 0 to 1, of a name that is worth suggesting.
_NEAR = 0.7


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: An unknown `key`, a `value` that is not allowed, or `other`.
        where: File with line, or option, that is to blame.
        sentence: The dotted key, what is allowed and the value seen.
    """

    kind: Literal["key", "value", "other"]
    where: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}"


def recipe_error(name: str, problems: Sequence[Problem], more: int = 0) -> RecipeError:
    """One exception for all problems: a line each, and the narrowest class that fits them all.

    Args:
        name: Of the recipe.
        problems: At least one; of many, the first are told.
        more: Further problems, which nobody has put into words.
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
    """Put one of pydantic's errors into a sentence of ours, and name its kind."""
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
    """Keys that lead to what one of pydantic's errors is about."""
    return tuple(key for key in error["loc"] if key != "[key]")


def involved_keys(error: ErrorDetails) -> list[tuple[str | int, ...]]:
    """Keys to blame: those that a rule over several keys names, else those in question."""
    keys = key_path(error)
    if error["type"] != "value_error":
        return [keys]
    named = re.findall(r"[a-z_]+(?:\.[a-z_]+)*", str(error["ctx"]["error"]))
    paths = [(*keys, *name.split(".")) for name in named]
    return [path for path in paths if _schema_key(path) in schema_fields()] or [keys]


def _schema_key(keys: Sequence[str | int]) -> str:
    """The schema's name of a path: names that the recipe chose become `*`."""
    known, dotted = schema_fields(), ""
    for key in map(str, keys):
        step = f"{dotted}.{key}" if dotted else key
        any_name = f"{dotted}.{ANY_NAME}."
        dotted = f"{dotted}.{ANY_NAME}" if any(k.startswith(any_name) for k in known) else step
    return dotted


def _allowed_instead(keys: Sequence[str | int]) -> str:
    """The nearest known key, looked for in all sections; without one, the keys of this section."""
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
    """How much an unknown key looks like a known one, 0 to 1.

    `policy.lora.r` is compared as `r`, `lora_r` and `policy_lora_r`, `train.learning_rate` as `lr`
    too and `policy.model` as `model_name`: people flatten, abbreviate and know the flags.
    """
    parts = known.split(".")
    forms = ["_".join(parts[i:]) for i in range(len(parts))]
    forms += [name.removeprefix("--").replace("-", "_") for name in flag_names(known)]
    words = parts[-1].split("_")
    if len(words) > 1:
        forms.append("".join(word[0] for word in words))
    return max(difflib.SequenceMatcher(None, unknown, form).ratio() for form in forms)
