"""From the options of `rsearch eval` to what is evaluated, and from two folders to a comparison.

Place in the path: between the command line and `evaluating`. On failure: options that contradict
each other are usage errors (exit code 2); a recipe, a model or a folder that cannot be used raises
what its module raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from rsearch_cli.errors import DataError
from rsearch_cli.evaluation.comparison import compare
from rsearch_cli.evaluation.folder import EvaluationFolder, flatten
from rsearch_cli.evaluation.methods import METHODS
from rsearch_cli.evaluation.result import EvalResult
from rsearch_cli.evaluation.spec import EvalSpec
from rsearch_cli.questions.sets import WHOLE
from rsearch_cli.recipe.unread import tell_notes
from rsearch_cli.workflows.evaluate import MOST_AT_ONCE
from rsearch_cli.workflows.open_policy import choose_policy

DEFAULT_FOLDER = Path("evals")


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """The options as they were given; None is «not given». See `rsearch eval --help`."""

    recipe: str | None = None
    overrides: Sequence[str] = field(default_factory=list)
    methods: str = "rsearch"
    model: str | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    data_path: str | None = None
    split: str | None = None
    limit: int | None = None
    seed: int | None = None
    batch_size: int | None = None
    judge: bool | None = None
    output_dir: Path | None = None
    trust_settings: bool = False
    trust_remote_code: bool = False


def plan_evaluation(options: EvalOptions) -> EvalSpec:
    """Settle what is evaluated.

    Raises:
        RecipeError: The recipe or a setting cannot be used.
        PolicyError: `--model` names nothing that can be used.
        BadParameter: Options contradict each other.
    """
    methods = read_methods(options.methods)
    flags = {
        "questions.path": options.data_path,
        "seed": options.seed,
        "reward.answer": "judge" if options.judge else None,
        "policy.trust_remote_code": options.trust_remote_code or None,
    }
    loaded, adapter = choose_policy(
        options.recipe,
        options.overrides,
        options.model,
        options.endpoint,
        options.endpoint_model,
        flags,
        trust_settings=options.trust_settings,
    )
    tell_notes(loaded, "eval")
    recipe, name = loaded.recipe, loaded.name
    if options.judge is False and recipe.reward.answer == "judge":
        reward = recipe.reward.model_copy(update={"answer": "f1"})
        recipe = recipe.model_copy(update={"reward": reward})
    whole = options.data_path is not None and options.split is None
    limit = options.limit
    if limit is None and not whole:
        limit = recipe.evaluate.limit
    return EvalSpec(
        recipe=recipe,
        adapter=adapter,
        methods=methods,
        split=options.split or (WHOLE if whole else recipe.evaluate.split),
        limit=limit,
        batch_size=options.batch_size or min(recipe.rollout.micro_batch, MOST_AT_ONCE),
        output=options.output_dir or DEFAULT_FOLDER / _name_output(options, name),
    )


def read_methods(text: str) -> tuple[str, ...]:
    """The methods of a comma-separated list, each once, in the order given.

    Raises:
        BadParameter: One is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        seen = repr(unknown[0] if unknown else text)
        raise typer.BadParameter(f"--method knows {', '.join(METHODS)}; got {seen}")
    return names


def compare_evaluations(first: str, second: str) -> dict[str, Any]:
    """Compare what two folders hold, method by method.

    Args:
        first: A folder, or `FOLDER:METHOD`.
        second: The same; where neither names a method, all that both have are compared.

    Returns:
        `methods`: one block of `compare` each, with the names of both sides; `settings`:
        a line for every setting in which the two differ.

    Raises:
        RunFolderError: A folder holds no evaluation.
        DataError: The two have no method in common, or other questions.
    """
    folder_a, method_a = _split_method(first)
    folder_b, method_b = _split_method(second)
    rows_a, rows_b = _rows_by_method(folder_a), _rows_by_method(folder_b)
    if method_a or method_b:
        pairs = [(method_a or method_b or "", method_b or method_a or "")]
    else:
        pairs = [(name, name) for name in rows_a if name in rows_b]
    missing = [
        f"{folder} has no answers of method {name!r}, it has {', '.join(rows) or 'none'}"
        for folder, name, rows in (
            (folder, pair[side], rows)
            for pair in pairs
            for side, (folder, rows) in enumerate(((folder_a, rows_a), (folder_b, rows_b)))
        )
        if name not in rows
    ]
    if missing or not pairs:
        methods = f"{', '.join(rows_a) or 'none'} and {', '.join(rows_b) or 'none'}"
        raise DataError(
            missing[0]
            if missing
            else f"no method is in both evaluations, they have {methods}; "
            "name them as FOLDER:METHOD"
        )
    return {
        "methods": [
            {
                "first": f"{folder_a}:{a}",
                "second": f"{folder_b}:{b}",
                **compare(rows_a[a], rows_b[b]),
            }
            for a, b in pairs
        ],
        "settings": _differences(folder_a, folder_b),
    }


def _name_output(options: EvalOptions, recipe_name: str) -> str:
    """A name for the folder that tells evaluations apart; whoever wants a better one gives it."""
    parts = [options.recipe and Path(options.recipe).stem, options.model, options.endpoint_model]
    names = [Path(part).name.replace(":", "-") for part in parts if part]
    return "-".join(names) or recipe_name


def _split_method(given: str) -> tuple[Path, str | None]:
    folder, colon, method = given.rpartition(":")
    return (Path(folder), method) if colon and method in METHODS else (Path(given), None)


def _rows_by_method(path: Path) -> dict[str, list[EvalResult]]:
    folder = EvaluationFolder(path)
    methods = [name for name in folder.read_settings()["methods"] if isinstance(name, str)]
    records = folder.read_records()
    rows = {name: [r for r in records if r.method == name] for name in methods}
    return {name: mine for name, mine in rows.items() if mine}


def _differences(first: Path, second: Path) -> list[str]:
    old, new = (flatten(EvaluationFolder(f).read_settings()) for f in (first, second))
    keys = [*old, *(key for key in new if key not in old)]
    told = [key for key in keys if key not in ("methods", "batch_size")]
    return [f"{k}: {old.get(k)} and {new.get(k)}" for k in told if old.get(k) != new.get(k)]
