"""Turn the arguments of `rsearch eval` into the specification of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsearch_cli.errors import UsageError
from rsearch_cli.evaluation.methods import AGENT, METHODS
from rsearch_cli.evaluation.spec import EvalSpec
from rsearch_cli.questions.sets import WHOLE
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.recipe.unread import log_notes
from rsearch_cli.workflows.open_policy import choose_policy

MAX_BATCH = 32
"""Largest default batch; a kill loses at most one batch."""

DEFAULT_FOLDER = Path("evals")


def specify_evaluation(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    methods: str | Sequence[str] = AGENT,
    source: str | None = None,
    overrides: Sequence[str] = (),
    data_path: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    samples: int | None = None,
    judge: bool | None = None,
    output_dir: str | Path | None = None,
    trust_settings: bool = False,
    trust_remote_code: bool = False,
) -> EvalSpec:
    """Return what is evaluated, and how; the arguments are those of `evaluate`.

    Raises:
        UsageError: Arguments contradict each other.
        RecipeError: The recipe or a setting cannot be used.
        PolicyError: `model` cannot be used.
    """
    names = read_methods(methods)
    flags = {
        "questions.path": None if data_path is None else str(data_path),
        "seed": seed,
        "reward.answer": "judge" if judge else None,
        "policy.trust_remote_code": trust_remote_code or None,
    }
    loaded, adapter = choose_policy(
        str(recipe) if isinstance(recipe, Path) else recipe,
        overrides,
        None if model is None else str(model),
        endpoint,
        endpoint_model,
        flags,
        source=source,
        trust_settings=trust_settings,
    )
    log_notes(loaded, "eval" if samples is None else "eval --samples")
    settings = loaded.recipe if judge is not False else _without_judge(loaded.recipe)
    whole_file = data_path is not None and split is None
    given = Path(recipe).stem if isinstance(recipe, str | Path) else None
    folder = DEFAULT_FOLDER / _name(given, model, endpoint_model, loaded.name)
    return EvalSpec(
        recipe=settings,
        adapter=adapter,
        methods=names,
        split=split or (WHOLE if whole_file else settings.evaluate.split),
        limit=settings.evaluate.limit if limit is None and not whole_file else limit,
        batch_size=batch_size or min(settings.rollout.micro_batch, MAX_BATCH),
        output_dir=Path(output_dir or folder),
        samples=samples,
    )


def read_methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    """Return the methods of a list or of comma-separated names, each once, in the order given.

    Raises:
        UsageError: One is unknown, or there is none.
    """
    given = methods.split(",") if isinstance(methods, str) else methods
    names = tuple(dict.fromkeys(name.strip() for name in given if name.strip()))
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        got = unknown[0] if unknown else methods
        raise UsageError(f"--method must be one or more of {', '.join(METHODS)}; got {got!r}")
    return names


def _without_judge(recipe: Recipe) -> Recipe:
    if recipe.reward.answer != "judge":
        return recipe
    return recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"answer": "f1"})})


def _name(*parts: str | Path | None) -> str:
    """Return a folder name that tells evaluations apart, from what was given explicitly."""
    *given, default = parts
    names = [Path(part).name.replace(":", "-") for part in given if part]
    return "-".join(names) or str(default)
