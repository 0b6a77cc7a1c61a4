"""`rsearch train`: train a search agent, evaluated before and after."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsearch_cli.commands.options import (
    RUN_PANEL,
    CacheDir,
    ExaKey,
    HubToken,
    OpenaiKey,
    Overrides,
    Recipe,
    TrustRemoteCode,
    TrustSettings,
    WandbKey,
    recipe_options,
    require_recipe,
    use_services,
    with_remote_code,
)
from rsearch_cli.distributed import world_size
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import print_json, rich_stdout
from rsearch_cli.workflows.launch import launch, without_launch_flags

if TYPE_CHECKING:
    from rsearch_cli.workflows.train import TrainingReport


@recipe_options()
def train(
    recipe: Recipe = None,
    overrides: Overrides = None,
    output_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Run folder.",
            show_default="output_dir of the recipe",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the run in the folder.", rich_help_panel=RUN_PANEL
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue from the last checkpoint.", rich_help_panel=RUN_PANEL
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Train even if the GPU is missing or predicted to be too small.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = False,
    exa_api_key: ExaKey = None,
    openai_api_key: OpenaiKey = None,
    wandb_api_key: WandbKey = None,
    hub_token: HubToken = None,
    cache_dir: CacheDir = None,
    trust_settings: TrustSettings = False,
    trust_remote_code: TrustRemoteCode = False,
    num_processes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of training processes, one per GPU.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = 1,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File written by `accelerate config`: FSDP, DeepSpeed, several machines.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print summary.json instead of the report.")
    ] = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Train a search agent with GRPO, and evaluate it before and after.

    --stage sft trains on recorded rollouts (traces) instead; GRPO can then
    start from the result (policy.adapter). With it, --max-steps, --lr,
    --batch-size and --gradient-accumulation-steps set the recipe's sft section.

    A flag overrides the recipe. Brackets show the value used if neither sets one.

    Example: rsearch train --recipe quickstart --max-steps 20
    """
    from rsearch_cli.recipe.flags import keys_of_stage
    from rsearch_cli.recipe.loading import load_recipe, peek
    from rsearch_cli.recipe.trust import as_trusted
    from rsearch_cli.recipe.unread import log_notes
    from rsearch_cli.training.resume import require_own_recipe, run_of_recipe
    from rsearch_cli.workflows import train as workflow

    use_services(
        exa_api_key=exa_api_key,
        openai_api_key=openai_api_key,
        wandb_api_key=wandb_api_key,
        hub_token=hub_token,
        cache_dir=cache_dir,
    )
    recipe = require_recipe(recipe, "train")
    stage = peek("stage", recipe, overrides or (), settings)
    flags = with_remote_code(keys_of_stage(settings, stage), trust_remote_code)
    flags["output_dir"] = output_dir
    loaded = load_recipe(recipe, overrides or (), flags, trusted=as_trusted(trust_settings))
    own = run_of_recipe(recipe) if resume and output_dir is None else None
    folder = own or Path(loaded.recipe.output_dir.replace("{recipe}", loaded.name))
    if resume and not trust_settings and loaded.path.parent.resolve() == folder.resolve():
        require_own_recipe(recipe, overrides or (), flags)
    if world_size() == 1:
        log_notes(loaded, "train")
    if num_processes > 1 or accelerate_config:
        workflow.check(loaded.recipe, force=force)
        arguments = without_launch_flags(sys.argv[1:])
        raise typer.Exit(launch(arguments, num_processes, accelerate_config))
    workflow.train(
        loaded.recipe,
        folder,
        resume=resume,
        overwrite=overwrite,
        force=force,
        on_report=partial(_print, as_json=as_json, show=loaded.recipe.evaluate.show_trajectories),
    )


def _print(report: TrainingReport, as_json: bool, show: int) -> None:
    if as_json:
        print_json(report.summary)
        return
    from rsearch_cli.ui.training_report import print_report

    with rich_stdout() as console:
        print_report(
            console,
            report.summary,
            report.rows,
            report.validations,
            report.before,
            report.after,
            show,
        )
    echo(f"run folder: {report.folder}")
    if report.view:
        echo(f"look into it: open {report.view} in a browser")
