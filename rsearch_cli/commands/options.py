"""Options that several commands take alike, and what they do to the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsearch_cli.commands.keys import keep_keys

if TYPE_CHECKING:
    pass

POLICY_PANEL, SERVICES_PANEL = "Policy", "Services"

OptionalRecipe = Annotated[
    str | None,
    typer.Option(help="A recipe's name or path; default: the run's own, else quickstart."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Run folder, adapter, model folder, Hub id or builtin:nano.",
        rich_help_panel=POLICY_PANEL,
    ),
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Ask this OpenAI-compatible server instead of local weights.",
        rich_help_panel=POLICY_PANEL,
    ),
]
EndpointModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The model's name on that server.", rich_help_panel=POLICY_PANEL
    ),
]
ExaKey = Annotated[
    str | None, typer.Option(help="Better: EXA_API_KEY.", rich_help_panel=SERVICES_PANEL)
]
OpenaiKey = Annotated[
    str | None, typer.Option(help="Better: OPENAI_API_KEY.", rich_help_panel=SERVICES_PANEL)
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The cache folder; default RSEARCH_CACHE_DIR, else the one of the user.",
        rich_help_panel=SERVICES_PANEL,
    ),
]
TrustSettings = Annotated[
    bool,
    typer.Option(
        "--trust-settings",
        help="Take every setting of a recipe that was not made here: addresses, paths, budgets.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the model; it can do all that you can.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def use_services(
    *,
    exa_api_key: str | None,
    openai_api_key: str | None,
    cache_dir: Path | None,
    wandb_api_key: str | None = None,
    hub_token: str | None = None,
) -> None:
    """Put what was given where services look for it; None is «not given»."""
    keep_keys(
        {
            "--exa-api-key": exa_api_key,
            "--openai-api-key": openai_api_key,
            "--wandb-api-key": wandb_api_key,
            "--hub-token": hub_token,
        }
    )
    if cache_dir is not None:
        os.environ["RSEARCH_CACHE_DIR"] = str(cache_dir)
