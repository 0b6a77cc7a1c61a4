"""Options that several commands share, and those that are generated from the recipe's fields."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from rsearch_cli.key_flags import export_keys
from rsearch_cli.recipe.flags import FLAGS, RecipeFlag, describe_flag, read_value

RECIPE_PANEL, RUN_PANEL = "Recipe", "Run folder"
QUESTION_PANEL, MODEL_PANEL, TRAINING_PANEL = "Questions", "Model", "Training"
REWARD_PANEL, SERVICES_PANEL = "Rollout and reward", "Services"
ANSWER_PANEL = "Conversation and answers"
WANDB_PANEL, HUB_PANEL = "Weights & Biases", "Hugging Face Hub"

_PANELS = {
    "dialogue": ANSWER_PANEL,
    "questions": QUESTION_PANEL,
    "policy": MODEL_PANEL,
    "reward": REWARD_PANEL,
    "rollout": REWARD_PANEL,
    "wandb": WANDB_PANEL,
    "hub": HUB_PANEL,
}


def value(
    metavar: str | None, help: str, panel: str | None = None, names: Sequence[str] = (), **more: Any
) -> Any:
    """Return a `typer.Option` that takes a value; `more` are further arguments of it."""
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel, **more)


def switch(name: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """Return a `typer.Option` without a value."""
    return typer.Option(name, help=help, rich_help_panel=panel, **more)


Recipe = Annotated[
    str | None,
    value("NAME", "Name or file of the recipe. Required.", RECIPE_PANEL),
]
RunRecipe = Annotated[
    str | None,
    value(
        "NAME",
        "Name or file of the recipe.",
        RECIPE_PANEL,
        show_default="that of the run in --model, else quickstart",
    ),
]
Overrides = Annotated[
    list[str] | None,
    value(
        "KEY=VALUE",
        "Override any setting of the recipe; may be repeated.",
        RECIPE_PANEL,
        names=("--set",),
    ),
]
Source = Annotated[
    str | None,
    value(
        "KIND",
        "Kind of all search sources, such as wikipedia, or their settings as YAML.",
        RECIPE_PANEL,
        names=("--source",),
    ),
]
TrustSettings = Annotated[
    bool,
    switch(
        "--trust-settings",
        "Accept all settings of a recipe from elsewhere, including URLs, paths and budgets.",
        RECIPE_PANEL,
    ),
]
Model = Annotated[
    str | None,
    value("MODEL", "Run folder, adapter, model folder, Hub id or builtin:nano.", MODEL_PANEL),
]
EndpointUrl = Annotated[
    str | None,
    value("URL", "OpenAI-compatible server to use instead of local weights.", MODEL_PANEL),
]
EndpointModel = Annotated[
    str | None,
    value("NAME", "Name of the model on that server.", MODEL_PANEL),
]
TrustRemoteCode = Annotated[
    bool,
    switch(
        "--trust-remote-code",
        "Run Python code that ships with the model. It can do anything you can.",
        MODEL_PANEL,
    ),
]
ExaKey = Annotated[
    str | None,
    value("KEY", "API key for Exa. Prefer the environment variable EXA_API_KEY.", SERVICES_PANEL),
]
OpenaiKey = Annotated[
    str | None,
    value(
        "KEY", "API key for judge, --endpoint and --teacher. Prefer OPENAI_API_KEY.", SERVICES_PANEL
    ),
]
WandbKey = Annotated[
    str | None,
    value("KEY", "API key for Weights & Biases. Prefer WANDB_API_KEY.", WANDB_PANEL),
]
HubToken = Annotated[
    str | None,
    value("TOKEN", "Access token for the Hub. Prefer HF_TOKEN.", HUB_PANEL),
]
CacheDir = Annotated[
    Path | None,
    value(
        "DIR",
        "Cache folder.",
        SERVICES_PANEL,
        show_default="RSEARCH_CACHE_DIR, else the user's cache folder",
    ),
]
Json = Annotated[bool, switch("--json", "Print the result as JSON.")]


def recipe_options(*keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of these recipe keys; without keys, all that have a flag.

    The command receives them as `settings`, dotted key to value; None means not given. Type,
    help and default come from the recipe's fields; values are checked with the recipe.
    """
    flags = [describe_flag(key) for key in keys or FLAGS]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_settings(**given: Any) -> None:
            values = {f.key: read_value(f, given.pop(_parameter_name(f))) for f in flags}
            command(**given, settings=values)

        own = inspect.signature(command, eval_str=True)
        parameters = [p for p in own.parameters.values() if p.name != "settings"]
        parameters += [_as_parameter(flag) for flag in flags]
        with_settings.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=parameters
        )
        return with_settings

    return decorate


def _parameter_name(flag: RecipeFlag) -> str:
    return flag.key.replace(".", "_") + "_setting"


def _as_parameter(flag: RecipeFlag) -> inspect.Parameter:
    names = list(flag.names)
    if flag.kind is bool:
        names = [f"{name}/--no-{name.removeprefix('--')}" for name in names]
    option = typer.Option(
        *names,
        help=flag.help,
        metavar="|".join(flag.choices) or None,
        show_default=flag.default or False,
        rich_help_panel=_PANELS.get(flag.key.partition(".")[0], TRAINING_PANEL),
    )
    kind: Any = str if flag.kind is list else flag.kind
    return inspect.Parameter(
        _parameter_name(flag),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def use_services(
    *,
    cache_dir: Path | None,
    exa_api_key: str | None = None,
    openai_api_key: str | None = None,
    wandb_api_key: str | None = None,
    hub_token: str | None = None,
) -> None:
    """Put keys and cache folder into the environment, where services read them.

    None means not given.
    """
    export_keys(
        {
            "--exa-api-key": exa_api_key,
            "--openai-api-key": openai_api_key,
            "--wandb-api-key": wandb_api_key,
            "--hub-token": hub_token,
        }
    )
    if cache_dir is not None:
        os.environ["RSEARCH_CACHE_DIR"] = str(cache_dir)


def with_remote_code(settings: Mapping[str, Any], trust_remote_code: bool) -> dict[str, Any]:
    """Settings with `policy.trust_remote_code`, which only a flag may set."""
    return {**settings, "policy.trust_remote_code": trust_remote_code or None}


def require_recipe(recipe: str | None, command: str) -> str:
    """The recipe that was named; without one, list what there is and exit with the usage code.

    Training may take money and hours, so no recipe is the default.

    Raises:
        UsageError: No recipe was named.
    """
    if recipe is not None:
        return recipe
    from rsearch_cli.errors import UsageError
    from rsearch_cli.recipe.loading import list_recipes
    from rsearch_cli.search.prices import find_prices
    from rsearch_cli.services.cost import Assumptions, estimate_run
    from rsearch_cli.streams import open_console
    from rsearch_cli.ui.output import plain_table

    table = plain_table("RECIPE", no_wrap=True)
    for heading in ("HARDWARE", "NEEDS", "COST"):
        table.add_column(heading)
    for loaded in list_recipes():
        evaluated = loaded.recipe.evaluate.limit or 0
        prices = find_prices(loaded.recipe.search)
        usd = estimate_run(loaded.recipe, evaluated, Assumptions(), "empty", prices).total.usd
        cost = f"about ${usd:.0f}" if usd else "none"
        table.add_row(loaded.name, loaded.recipe.hardware, loaded.recipe.needs, cost)
    open_console(stderr=True).print(table, "")
    details = "" if command == "estimate" else "; rsearch estimate predicts memory and cost in full"
    raise UsageError(f"name a recipe, as in: rsearch {command} --recipe quickstart{details}")
