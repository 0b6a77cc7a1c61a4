"""`rsearch train`: evaluate, train, evaluate again, compare.

Place in the path: it puts question set, search, policy, training and evaluation together. On
failure: recipe, output folder, questions and corpus are checked before the model is loaded, and an
existing run is not touched before all of them are there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
        str | None, typer.Option(help="Where the run goes.", rich_help_panel=RUN_PANEL)
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
            help="Go on where the memory plan says that the card is too small.",
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
            help="Number of processes that train together, one for each GPU.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = 1,
    accelerate_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file of `accelerate config`, for FSDP, DeepSpeed or several machines.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead.")] = False,
    *,
    settings: Mapping[str, Any],
) -> None:
    """Train a search agent by GRPO, and measure it before and after.

    With --stage sft it learns traces instead, as a start for GRPO (policy.adapter); --max-steps,
    --lr, --batch-size and --gradient-accumulation-steps then set the recipe's section sft.

    A flag overrides the recipe. In brackets: the value where the recipe sets none.

    Example: rsearch train --recipe quickstart --max-steps 20 --output-dir runs/short
    """
    from rsearch_cli.recipe.flags import keys_of_stage
    from rsearch_cli.recipe.loading import load_recipe, peek
    from rsearch_cli.recipe.trust import as_trusted
    from rsearch_cli.recipe.unread import log_notes
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
        _require_own(recipe, overrides or (), flags)
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


def run_of_recipe(recipe: str) -> Path | None:
    """The run folder that a recipe file belongs to, which may have been moved since it was made."""
    from rsearch_cli.runs.files import RECIPE
    from rsearch_cli.runs.run_folder import RunFolder

    path = Path(recipe)
    is_run = path.name == RECIPE and RunFolder(path.parent).is_started
    return path.parent if is_run else None


def _require_own(recipe: str, overrides: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Refuse the recipe of a run that was not made here, unless anybody may say what it says.

    Raises:
        RecipeError: Naming the settings that are not taken from others.
    """
    from rsearch_cli.errors import RecipeError
    from rsearch_cli.recipe.loading import load_recipe
    from rsearch_cli.recipe.trust import is_own, refusal

    if is_own(Path(recipe)):
        return
    if left := load_recipe(recipe, overrides, flags, trusted=False).left_out:
        raise RecipeError(refusal(recipe, left))


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
