"""Options that several commands share, and those that are generated from the recipe's fields."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
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

Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Name or file of the recipe. Required.", rich_help_panel=RECIPE_PANEL
    ),
]
RunRecipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name or file of the recipe.",
        show_default="that of the run in --model, else quickstart",
        rich_help_panel=RECIPE_PANEL,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override any setting of the recipe; may be repeated.",
        rich_help_panel=RECIPE_PANEL,
    ),
]
TrustSettings = Annotated[
    bool,
    typer.Option(
        "--trust-settings",
        help="Accept all settings of a recipe from elsewhere, including URLs, paths and budgets.",
        rich_help_panel=RECIPE_PANEL,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Run folder, adapter, model folder, Hub id or builtin:nano.",
        rich_help_panel=MODEL_PANEL,
    ),
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="OpenAI-compatible server to use instead of local weights.",
        rich_help_panel=MODEL_PANEL,
    ),
]
EndpointModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Name of the model on that server.", rich_help_panel=MODEL_PANEL
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that ships with the model. It can do anything you can.",
        rich_help_panel=MODEL_PANEL,
    ),
]
ExaKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="API key for Exa. Prefer the environment variable EXA_API_KEY.",
        rich_help_panel=SERVICES_PANEL,
    ),
]
OpenaiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="API key for the judge and --endpoint. Prefer OPENAI_API_KEY.",
        rich_help_panel=SERVICES_PANEL,
    ),
]
WandbKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="API key for Weights & Biases. Prefer WANDB_API_KEY.",
        rich_help_panel=WANDB_PANEL,
    ),
]
HubToken = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="Access token for the Hub. Prefer HF_TOKEN.",
        rich_help_panel=HUB_PANEL,
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Cache folder.",
        show_default="RSEARCH_CACHE_DIR, else the user's cache folder",
        rich_help_panel=SERVICES_PANEL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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
    from rich.table import Table

    from rsearch_cli.errors import UsageError
    from rsearch_cli.recipe.loading import list_recipes
    from rsearch_cli.services.cost import Assumptions, estimate_run
    from rsearch_cli.streams import open_console

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("RECIPE", no_wrap=True)
    for heading in ("HARDWARE", "NEEDS", "COST"):
        table.add_column(heading)
    for loaded in list_recipes():
        evaluated = loaded.recipe.evaluate.limit or 0
        usd = estimate_run(loaded.recipe, evaluated, Assumptions(), "empty").total.usd
        cost = f"about ${usd:.0f}" if usd else "none"
        table.add_row(loaded.name, loaded.recipe.hardware, loaded.recipe.needs, cost)
    open_console(stderr=True).print(table, "")
    details = "" if command == "estimate" else "; rsearch estimate predicts memory and cost in full"
    raise UsageError(f"name a recipe, as in: rsearch {command} --recipe quickstart{details}")
